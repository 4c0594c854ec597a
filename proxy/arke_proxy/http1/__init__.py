"""HTTP/1.1 as octets: heads and bodies, read strictly and written, without I/O."""
