"""What `-metrics` serves: the relay's numbers for Prometheus, and whether it is well."""
