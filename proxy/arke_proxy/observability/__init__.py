"""What operators see: access log, metrics, admin pages, log throttling."""
