"""The `arke` command, for people: one module per group of commands."""
