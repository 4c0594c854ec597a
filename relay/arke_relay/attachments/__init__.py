"""Local programs: the listeners they connect to, their connections, and the two protocols."""
