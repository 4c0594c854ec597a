"""The packets of the Iris relay protocol, and encoders for those that a relay sends."""

from __future__ import annotations

from enum import IntEnum

from arke_relay.attachments.iris.fields import to_binary, to_text, to_varint

MAX_TRANSFER = 64 * 1024
"""Bytes of tunnel data in one TUNNEL_TRANSFER."""


class Packet(IntEnum):
    """The first byte of a packet. Its fields depend on the direction."""

    WELCOME = 0x00  # from a program: INIT
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


def tunnel_init(offer: int) -> bytes:
    return bytes((Packet.TUNNEL_INIT,)) + to_varint(offer) + to_varint(MAX_TRANSFER)


def tunnel_confirm(tunnel: int) -> bytes:
    return bytes((Packet.TUNNEL_CONFIRM,)) + to_varint(tunnel) + _NO + to_varint(MAX_TRANSFER)


def tunnel_timed_out(tunnel: int) -> bytes:
    return bytes((Packet.TUNNEL_CONFIRM,)) + to_varint(tunnel) + _YES


def tunnel_allowance(tunnel: int, size: int) -> bytes:
    return bytes((Packet.TUNNEL_ALLOWANCE,)) + to_varint(tunnel) + to_varint(size)


def tunnel_transfer(tunnel: int, size: int, chunk: bytes) -> bytes:
    """`size` is the size of the whole message in its first chunk, and 0 in the others."""
    return b"".join((_TRANSFER, to_varint(tunnel), to_varint(size), to_varint(len(chunk)), chunk))


def tunnel_close(tunnel: int, reason: str) -> bytes:
    return bytes((Packet.TUNNEL_CLOSE,)) + to_varint(tunnel) + to_text(reason)
