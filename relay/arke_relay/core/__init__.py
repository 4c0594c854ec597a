"""Routing decisions of the relay. No sockets, clock, randomness or asyncio: all are passed in.

Every `now` is seconds of a monotonic clock. Messages leave through a `MessageSink` (`endpoints`).
"""
