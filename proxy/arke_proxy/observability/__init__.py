"""What operators see: access log, counters, metrics and admin pages."""
