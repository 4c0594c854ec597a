"""The machinery behind the public API: the relay connection, resending, deadlines, dispatch."""
