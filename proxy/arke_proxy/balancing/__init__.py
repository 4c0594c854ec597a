"""Which backend gets a request."""
