"""`arke bench`: how fast messages move on this machine, right now."""
