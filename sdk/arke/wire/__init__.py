"""What both ends of a connection speak: messages, their bounds, and how bodies are cut and joined.

Imported by the SDK and by the relay; it imports neither, and does no I/O.
"""
