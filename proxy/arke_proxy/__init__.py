"""The `proxy`: HTTP from outside, spread over the backends of a cluster."""
