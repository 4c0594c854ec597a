"""What every connection shares: deadlines, batched writes, descriptor limits."""
