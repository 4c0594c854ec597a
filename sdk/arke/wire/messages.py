"""Operations of the native protocol. A message is a MessagePack array `[op, …fields]`.

Conventions for the fields listed below:

* All fields are positional, and required unless marked optional. `headers` is a map of text to
  text, or nil.
* `body` is binary. For a body over `CHUNK` bytes it is the number of the stream that carried the
  chunks instead (see `outbox`). In BROADCAST, PUBLISH, DELIVER_BROADCAST and DELIVER_EVENT it may
  also be an array of up to 16 small bodies, each a separate broadcast or event.
* `request_id` is chosen by the sender of the request and is unique on its connection.
* `remaining_ms` is the time left until the request's deadline. All times are milliseconds.
* `stamp` is the relay's monotonic clock when it wrote the message.
* `tunnel` is the `request_id` that opened the tunnel. The end that opened it uses the number as it
  is, the end that accepted it uses the negated number. So a message received for tunnel N is
  answered with a message for tunnel -N.
"""

from __future__ import annotations

from enum import IntEnum

MAGIC = "arke"
VERSION = 1


class Op(IntEnum):
    """Operations between a program and its relay. Their fields follow in the comments."""

    # Connection.
    HELLO = 1  # program → relay: magic, version, program name, and optionally its identity
    WELCOME = 2  # relay → program: version, node, address, network, maximum body size
    PING = 3  # token; PONG confirms that all messages before PING have been processed
    PONG = 4  # token
    CLOSE = 5  # reason; the sender then closes the connection
    CHUNK = 6  # stream, total size, data: a part of a body over CHUNK bytes

    # Program → relay.
    REGISTER = 10  # cluster, metadata (a map of text to text, or nil); once per connection
    UNREGISTER = 11  # (no fields); requests delivered before it are still answered
    SUBSCRIBE = 12  # topic
    UNSUBSCRIBE = 13  # topic
    REQUEST = 14  # request_id, cluster, body, remaining_ms, idempotent, headers
    CANCEL = 15  # request_id: the caller no longer waits for the reply
    BROADCAST = 16  # cluster, body, headers
    PUBLISH = 17  # topic, body, headers
    STATUS = 18  # request_id; answered by REPLY with a JSON document
    REQUEST_MEMBER = 19  # request_id, member, body, remaining_ms, idempotent, headers
    WATCH = 54  # cluster; answered by MEMBER_JOINED for each member, then MEMBERS_LISTED;
    #          later joins and leaves are sent as they happen
    UNWATCH = 55  # cluster

    # Relay → program.
    DELIVER_REQUEST = 20  # request_id, body, remaining_ms, stamp, sender, headers
    DELIVER_BROADCAST = 21  # body, sender, headers: a broadcast to the program's cluster
    DELIVER_EVENT = 22  # topic, body, sender, headers: a message published to a topic
    NODE_ADDRESS = 23  # address: the node's new address
    DRAINING = 24  # last request_id accepted, reason: the relay is shutting down; later requests
    #          were not started
    MEMBER_JOINED = 25  # cluster, member, address of its node, metadata
    MEMBER_LEFT = 26  # cluster, member
    REQUEST_CANCELLED = 27  # request_id: the caller no longer waits for the reply
    MEMBERS_LISTED = 28  # cluster: every current member has been listed

    # Outcomes of a request.
    REPLY = 30  # request_id, body
    FAULT = 31  # request_id, type, text: the handler raised an exception
    REFUSED = 32  # program → relay: request_id, reason; no handler was started
    FAILED = 33  # relay → program: request_id, Failure, text

    # Tunnels. OFFER is answered by ACCEPT, FAULT or REFUSED. After ACCEPT each end grants the other
    # credit, counted in bytes of `data`.
    OPEN = 34  # program → relay: request_id, cluster, body, remaining_ms, member or nil, purpose,
    #          window, maximum message size, headers
    OFFER = 35  # relay → program: request_id, body, remaining_ms, stamp, purpose, window,
    #          maximum message size, sender, headers
    ACCEPT = 36  # request_id, window (the most credit that each end grants), maximum message size
    DATA = 37  # tunnel, total, data. total nil: whole small messages, each a MessagePack binary.
    #          total > 0: the first bytes of a message of that size. total 0: its next bytes
    CREDIT = 38  # tunnel, bytes that may be sent in addition to earlier grants
    END = 39  # tunnel, TunnelClose, error type, error text


class Failure(IntEnum):
    """Why the relay could not deliver a request or its reply."""

    NO_SUCH_CLUSTER = 1
    MEMBER_LOST = 2
    OVERLOADED = 3
    TIMED_OUT = 4
    TOO_LARGE = 5
    NO_SUCH_MEMBER = 6


class Purpose(IntEnum):
    """What a tunnel carries."""

    TUNNEL = 0  # messages between two programs
    MULTIPART_REPLY = 1  # the parts of a reply
    HTTP = 2  # the bytes of a connection to the HTTP server that the member registered


class TunnelClose(IntEnum):
    """How one end closes a tunnel."""

    SEND_CLOSED = 0  # half-close: the sender sends no more data, but still reads
    CLOSED = 1  # the sender neither sends nor reads any more
    ABORTED = 2  # data in transit may be lost; the error type and text say why


class PeerOp(IntEnum):
    """Operations between two relays. Outcomes, chunks and tunnels use the operations of `Op`.

    A batch starts with `[session, stamp, acknowledged]`: the sender's session, its monotonic clock,
    and its answer about the receiver's sessions. The messages follow. Values of `acknowledged`:

    * n > 0: the sender accepts the receiver's session n.
    * 0: it has not received any session.
    * -n: it rejects sessions up to n.

    `expiry` is the deadline on the sender's monotonic clock; `program` is the number of the calling
    program on the sender's node.
    """

    MEMBER_JOINED = 40  # cluster, member, metadata: a program of the sender's node registered
    MEMBER_LEFT = 41  # cluster, member
    SUBSCRIBED = 42  # topic: at least one program of the sender's node subscribes
    UNSUBSCRIBED = 43  # topic: the last subscriber of the sender's node unsubscribed
    SYNCED = 44  # (no fields); the sender's whole directory has been sent
    KNOWN_PEER = 45  # node, address, join port of another relay that the sender is linked with
    CLOSE = 46  # (no fields); the sender is done. The receiver answers with CLOSE and disconnects
    DRAINING = 47  # last request_id accepted: the node is shutting down; later requests were not
    #          started
    REQUEST = 48  # request_id, cluster, body, expiry, program, headers
    CANCEL = 49  # request_id
    BROADCAST = 50  # cluster, body, program, headers
    PUBLISH = 51  # topic, body, program, headers
    OPEN = 52  # request_id, cluster, body, expiry, program, member (0: any), purpose, window,
    #          maximum message size, headers
    REQUEST_MEMBER = 53  # request_id, cluster, body, expiry, program, member, headers
