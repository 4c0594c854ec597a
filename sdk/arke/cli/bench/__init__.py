"""`arke bench`: measure the throughput and latency of messages on this machine."""
