"""HTTP/1.1: parses and serializes heads and bodies, without I/O."""
