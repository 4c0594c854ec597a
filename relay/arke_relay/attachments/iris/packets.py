"""The packets of the Iris relay protocol, and what a program is told in them."""

from __future__ import annotations

from enum import IntEnum

from arke_relay.attachments.iris.fields import to_binary, to_text, to_varint

VERSION = "v1.0-draft2"
CLIENT_MAGIC = "iris-client-magic"
RELAY_MAGIC = "iris-relay-magic"

CHUNK_LIMIT = 64 * 1024
"""Octets of a tunnel that one transfer carries at most."""


class Packet(IntEnum):
    """The first octet of a packet. What follows differs with who sends it."""

    WELCOME = 0x00
    REFUSAL = 0x01
    CLOSE = 0x02
    BROADCAST = 0x03
    REQUEST = 0x04
    REPLY = 0x05
    SUBSCRIBE = 0x06
    UNSUBSCRIBE = 0x07
    PUBLISH = 0x08
    TUNNEL_INIT = 0x09
    TUNNEL_CONFIRM = 0x0A
    TUNNEL_ALLOWANCE = 0x0B
    TUNNEL_TRANSFER = 0x0C
    TUNNEL_CLOSE = 0x0D


_YES = b"\x01"
_NO = b"\x00"
_REQUEST = bytes((Packet.REQUEST,))
_REPLY = bytes((Packet.REPLY,))
_TRANSFER = bytes((Packet.TUNNEL_TRANSFER,))


def welcome() -> bytes:
    return bytes((Packet.WELCOME,)) + to_text(RELAY_MAGIC) + to_text(VERSION)


def refusal(reason: str) -> bytes:
    return bytes((Packet.REFUSAL,)) + to_text(RELAY_MAGIC) + to_text(reason)


def close(reason: str) -> bytes:
    return bytes((Packet.CLOSE,)) + to_text(reason)


def broadcast(message: bytes) -> bytes:
    return bytes((Packet.BROADCAST,)) + to_binary(message)


def publish(topic: str, event: bytes) -> bytes:
    return bytes((Packet.PUBLISH,)) + to_text(topic) + to_binary(event)


def request(number: int, body: bytes, timeout: int) -> bytes:
    return b"".join((_REQUEST, to_varint(number), to_binary(body), to_varint(timeout)))


def reply(number: int, body: bytes) -> bytes:
    return b"".join((_REPLY, to_varint(number), _NO, _YES, to_varint(len(body)), body))


def fault(number: int, text: str) -> bytes:
    return b"".join((_REPLY, to_varint(number), _NO, _NO, to_text(text)))


def timed_out(number: int) -> bytes:
    return b"".join((_REPLY, to_varint(number), _YES))


def tunnel_init(build: int) -> bytes:
    return bytes((Packet.TUNNEL_INIT,)) + to_varint(build) + to_varint(CHUNK_LIMIT)


def tunnel_confirm(tunnel: int) -> bytes:
    return bytes((Packet.TUNNEL_CONFIRM,)) + to_varint(tunnel) + _NO + to_varint(CHUNK_LIMIT)


def tunnel_timed_out(tunnel: int) -> bytes:
    return bytes((Packet.TUNNEL_CONFIRM,)) + to_varint(tunnel) + _YES


def tunnel_allowance(tunnel: int, octets: int) -> bytes:
    return bytes((Packet.TUNNEL_ALLOWANCE,)) + to_varint(tunnel) + to_varint(octets)


def tunnel_transfer(tunnel: int, size: int, chunk: bytes) -> bytes:
    """`size` is that of the whole message with its first chunk, then 0."""
    return b"".join((_TRANSFER, to_varint(tunnel), to_varint(size), to_varint(len(chunk)), chunk))


def tunnel_close(tunnel: int, reason: str) -> bytes:
    return bytes((Packet.TUNNEL_CLOSE,)) + to_varint(tunnel) + to_text(reason)
