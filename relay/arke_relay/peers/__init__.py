"""Other relays: who they are, whether to admit them, and the links to them."""
