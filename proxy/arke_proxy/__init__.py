"""The `proxy`: HTTP from outside, spread over the back ends of a cluster."""
