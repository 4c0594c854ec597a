"""The native protocol: every message is one MessagePack array, `[op, …fields]`.

Fields are given in order; `headers`, where it stands, is a map of text to text or nil. A field
named `body` is either binary or, for a body over `CHUNK` bytes, the number of the stream whose
chunks came before (see `outbox`). In a cast (BROADCAST, PUBLISH, TOLD, EVENT) it may also be an
array of up to 16 small bodies: as many casts, in this order. Times are milliseconds.

A tunnel is named by the number of the call that opened it; whoever was called says that number
negated. So what comes in under a name goes out under the name negated.
"""

from __future__ import annotations

from enum import IntEnum

MAGIC = "arke"
VERSION = 1


class Op(IntEnum):
    """Operations between a program and its relay."""

    # Both directions.
    HELLO = 1  # program → relay: magic, version, name of the program, its identity
    WELCOME = 2  # relay → program: version, node, address, network, largest message in bytes
    PING = 3  # token; answered by PONG, behind all calls and casts sent before it was handled
    PONG = 4  # token
    CLOSE = 5  # reason; the sender closes the connection behind it
    CHUNK = 6  # stream, total bytes, data: a part of a body over CHUNK bytes

    # Program → relay.
    REGISTER = 10  # cluster, metadata (a map of text to text, or nil); once per connection
    UNREGISTER = 11  # (nothing); what was handed over before is still answered
    SUBSCRIBE = 12  # topic
    UNSUBSCRIBE = 13  # topic
    REQUEST = 14  # call, cluster, body, timeout, idempotent, headers
    CANCEL = 15  # call; nobody waits for its outcome any more
    BROADCAST = 16  # cluster, body, headers
    PUBLISH = 17  # topic, body, headers
    STATUS = 18  # call; answered by REPLY with a JSON document
    REQUEST_MEMBER = 19  # call, member, body, timeout, idempotent, headers: a request to one member
    WATCH = 54  # cluster; answered by CAME for each member and NAMED, then told who comes and goes
    UNWATCH = 55  # cluster

    # Relay → program.
    DELIVER_REQUEST = (
        20  # call, body, timeout, stamp (the relay's monotonic clock), sender, headers
    )
    DELIVER_BROADCAST = 21  # body, sender, headers: a broadcast to the program's cluster
    DELIVER_EVENT = 22  # topic, body, sender, headers
    NODE_ADDRESS = 23  # address: the node is reached at another address from now on
    MEMBER_JOINED = 25  # cluster, member, address of its node, metadata
    MEMBER_LEFT = 26  # cluster, member
    MEMBERS_LISTED = 28  # cluster: every member there is has been named, here and at all peers
    REQUEST_CANCELLED = 27  # call: nobody waits for its answer any more
    DRAINING = 24  # last call accepted, reason: the relay is leaving; later calls never started

    # Outcomes, in both directions.
    REPLY = 30  # call, body
    FAULT = 31  # call, type, text: the handler raised
    REFUSED = 32  # program → relay: call, reason; the handler was never started
    FAILED = 33  # relay → program: call, Failure, text

    # Tunnels. An offer is answered by ACCEPT, FAULT or REFUSED, as a call is; once it is accepted,
    # each side grants the other credit, in octets of `data`.
    OPEN = 34  # program → relay: call, cluster, body, timeout, member or nil, purpose, window,
    #          largest, headers
    OFFER = 35  # relay → program: call, body, timeout, stamp, purpose, window, largest, sender,
    #          headers
    ACCEPT = 36  # call, window, largest: the most credit to grant, and the largest message taken
    DATA = 37  # tunnel, total, data: total is nil for whole small messages, each MessagePack
    #          binary; else octets of a message, at its beginning with its length, then with 0
    CREDIT = 38  # tunnel, octets that may be sent beside those granted before
    END = 39  # tunnel, Ending, type, text


class Failure(IntEnum):
    """Why the mesh could not bring an answer."""

    NO_SUCH_CLUSTER = 1
    MEMBER_LOST = 2
    OVERLOADED = 3
    TIMED_OUT = 4
    TOO_LARGE = 5
    NO_SUCH_MEMBER = 6


class Purpose(IntEnum):
    """What a tunnel is opened for."""

    TUNNEL = 0
    PARTS = 1  # the answer to a request, part by part
    HTTP = 2  # the octets of a connection to the HTTP server whose address the member registered


class Ending(IntEnum):
    """How one side of a tunnel ends."""

    SEND_CLOSED = 0  # it sends nothing more; it still reads
    CLOSED = 1  # it sends nothing more, and reads nothing more
    ABORTED = 2  # nothing that is under way can be relied on; `type` and `text` say why


class PeerOp(IntEnum):
    """Operations between two relays; outcomes and chunks as in `Op`.

    A batch begins with `[session, stamp, hearing]`: the sender's session, its monotonic clock, and
    the session of the receiver that it is listening to (0: none; negative: it has given up that one
    and all before it). Then the messages follow.
    """

    MEMBER_JOINED = (
        40  # cluster, member, metadata: a program of the sender's node serves the cluster
    )
    MEMBER_LEFT = 41  # cluster, member
    SUBSCRIBED = 42  # topic: at least one program of the sender's node listens
    UNSUBSCRIBED = 43  # topic
    SYNCED = 44  # (nothing); the sender's directory has been told whole
    KNOWN_PEER = 45  # node, address, join port: somebody the sender is linked with
    CLOSE = 46  # (nothing); the sender has done. Whoever hears it says the same, and goes
    DRAINING = 47  # last call accepted: take the node out; later calls never started
    REQUEST = 48  # call, cluster, body, expiry (the sender's monotonic clock), program, headers
    CANCEL = 49  # call
    BROADCAST = 50  # cluster, body, program, headers
    PUBLISH = 51  # topic, body, program, headers
    OPEN = 52  # call, cluster, body, expiry, program, member (0: any), purpose, window, largest,
    #          headers
    REQUEST_MEMBER = (
        53  # call, cluster, body, expiry, program, member, headers: a call to one member
    )
