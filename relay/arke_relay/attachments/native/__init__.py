"""The native codec: what a program's octets mean to the exchange, and the other way round."""
