"""What runs on each host beside its relay: `member` and `caller`."""
