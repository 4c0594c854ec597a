"""The native protocol: every message is one MessagePack array, `[op, …fields]`.

Fields are given in order; `headers`, where it stands, is a map of text to text or nil. A field
named `body` is either binary or, for a body over `CHUNK` bytes, the number of the stream whose
chunks came before (see `chunks`). In a cast (BROADCAST, PUBLISH, TOLD, EVENT) it may also be an
array of up to 16 small bodies: as many casts, in this order. Times are milliseconds.
"""

from __future__ import annotations

from enum import IntEnum

MAGIC = "arke"
VERSION = 1


class Op(IntEnum):
    """Operations between a program and its relay."""

    # Both directions.
    HELLO = 1  # program → relay: magic, version, name of the program
    WELCOME = 2  # relay → program: version, node, address, network, largest message in bytes
    PING = 3  # token; answered by PONG after everything sent before it was handled
    PONG = 4  # token
    CLOSE = 5  # reason; the sender closes the connection behind it
    CHUNK = 6  # stream, total bytes, data: a part of a body over CHUNK bytes

    # Program → relay.
    REGISTER = 10  # cluster; once per connection
    LEAVE = 11  # (nothing); what was handed over before is still answered
    SUBSCRIBE = 12  # topic
    UNSUBSCRIBE = 13  # topic
    REQUEST = 14  # call, cluster, body, timeout, idempotent, headers
    CANCEL = 15  # call; nobody waits for its outcome any more
    BROADCAST = 16  # cluster, body, headers
    PUBLISH = 17  # topic, body, headers
    STATUS = 18  # call; answered by REPLY with a JSON document

    # Relay → program.
    CALL = 20  # call, body, timeout, stamp (the relay's monotonic clock), sender, headers
    TOLD = 21  # body, sender, headers: a broadcast to the program's cluster
    EVENT = 22  # topic, body, sender, headers
    NODE = 23  # address: the node is reached at another address from now on
    GOODBYE = 24  # last call accepted, reason: the relay is leaving; later calls never started

    # Outcomes, in both directions.
    REPLY = 30  # call, body
    FAULT = 31  # call, type, text: the handler raised
    REFUSED = 32  # program → relay: call, reason; the handler was never started
    FAILED = 33  # relay → program: call, Failure, text


class Failure(IntEnum):
    """Why the mesh could not bring an answer."""

    NO_SUCH_CLUSTER = 1
    MEMBER_LOST = 2
    OVERLOADED = 3
    TIMED_OUT = 4
    TOO_LARGE = 5


class PeerOp(IntEnum):
    """Operations between two relays; outcomes and chunks as in `Op`.

    A batch begins with `[session, stamp, hearing]`: the sender's session, its monotonic clock, and
    the session of the receiver that it is listening to (0: none; negative: it has given up that one
    and all before it). Then the messages follow.
    """

    JOINED = 40  # cluster, member: a program of the sender's node serves the cluster
    LEFT = 41  # cluster, member
    SUBSCRIBED = 42  # topic: at least one program of the sender's node listens
    UNSUBSCRIBED = 43  # topic
    SYNCED = 44  # (nothing); the sender's directory has been told whole
    KNOWN = 45  # node, address, join port: somebody the sender is linked with
    DRAINING = 47  # last call accepted: take the node out; later calls never started
    CALL = 48  # call, cluster, body, expiry (the sender's monotonic clock), program, headers
    DROP_CALL = 49  # call
    TOLD = 50  # cluster, body, program, headers
    EVENT = 51  # topic, body, program, headers
