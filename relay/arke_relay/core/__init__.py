"""What the relay decides. No sockets, no clock, no randomness, no asyncio: all four are handed in.

Times named `now` are seconds of a monotonic clock. Messages leave through sinks (see `endpoints`).
"""
