"""The native codec: what a program's octets mean to the core, and the other way round."""
