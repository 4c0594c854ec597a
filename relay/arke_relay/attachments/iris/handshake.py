"""The Iris handshake: the program's INIT, and the relay's WELCOME or REFUSAL."""

from __future__ import annotations

from arke.wire.limits import MAX_HELLO, check_name
from arke.wire.malformed import Malformed
from arke_relay.attachments.detach_reason import UnsupportedVersion
from arke_relay.attachments.iris.fields import read_text, to_text
from arke_relay.attachments.iris.packets import Packet

VERSION = "v1.0-draft2"
CLIENT_MAGIC = "iris-client-magic"
RELAY_MAGIC = "iris-relay-magic"


def read_init(data: bytes, at: int) -> tuple[str, int]:
    """Return the cluster to register in, or "", and the offset of the next packet.

    Raises Incomplete, Malformed and UnsupportedVersion.
    """
    magic, at = read_text(data, at, MAX_HELLO)
    version, at = read_text(data, at, MAX_HELLO)
    cluster, at = read_text(data, at, MAX_HELLO)
    if magic != CLIENT_MAGIC:
        raise Malformed("the first packet is not the INIT of an Iris program")
    if version != VERSION:
        # The text of Iris itself.
        raise UnsupportedVersion(f"Unsupported protocol. Client: {version:.20}. Iris: {VERSION}.")
    if cluster:
        check_name(cluster)
    return cluster, at


def welcome() -> bytes:
    return bytes((Packet.WELCOME,)) + to_text(RELAY_MAGIC) + to_text(VERSION)


def refusal(reason: str) -> bytes:
    return bytes((Packet.REFUSAL,)) + to_text(RELAY_MAGIC) + to_text(reason)
