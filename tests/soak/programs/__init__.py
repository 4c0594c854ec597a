"""The programs on each host: `member` and `caller`."""
