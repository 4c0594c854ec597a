"""What a client may send by HTTP/2, without I/O; the library `h2` knows the rest."""
