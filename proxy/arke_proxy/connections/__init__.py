"""What all connections share: states and time limits, batched writes, descriptor limits."""
