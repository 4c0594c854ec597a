"""What HTTP/1.1 and HTTP/2 share: messages, fields, the request/response exchange, error pages."""
