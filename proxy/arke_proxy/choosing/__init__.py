"""Which back end gets a request."""
