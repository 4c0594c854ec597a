"""What HTTP/1.1 and HTTP/2 share: the exchange of a request, its messages, error pages."""
