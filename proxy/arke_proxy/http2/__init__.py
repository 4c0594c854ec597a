"""HTTP/2: set-up of the h2 library, header fields, limits on abusive clients."""
