"""Local programs: the ports they attach at, and the codec they speak."""
