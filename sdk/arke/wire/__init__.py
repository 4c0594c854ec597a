"""The wire format shared by the SDK and the relay: messages, limits, queueing and reassembly.

It does no I/O, and it imports neither the SDK's public API nor the relay.
"""
