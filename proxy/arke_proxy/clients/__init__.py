"""Client connections: HTTP/1.1, HTTP/2, TLS."""
