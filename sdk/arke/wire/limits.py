"""The limits of the wire protocol, each with its reason, and an unpacker that enforces them."""

from __future__ import annotations

from msgpack import Unpacker

from arke.wire.malformed import Malformed

# Message sizes.

CHUNK = 64 * 1024
"""Largest body sent in one message. Larger bodies are split into chunks of this size, so that a
small message never waits for a large one."""

MAX_MESSAGE = 16 * 1024 * 1024
"""Largest body in the network, unless the relay is configured otherwise."""

LARGEST_MAX_MESSAGE = 256 * 1024 * 1024
"""Largest body that a relay can be configured to accept."""

MAX_HEADERS = 16 * 1024
"""Total size of a message's headers, in bytes of text."""

MAX_MAP_ENTRIES = 64
"""Entries of a map: headers or metadata."""

MAX_METADATA = 4 * 1024
"""Size of a member's metadata, in bytes of text. Every peer keeps a copy."""

MAX_NAME = 255
"""Longest cluster or topic name, in bytes of UTF-8."""

MAX_REASON = 200
"""Longest reason of a refusal or a disconnect, in characters."""

MAX_HELLO = 4 * 1024
"""What a program may send before the relay has welcomed it, in bytes."""

MAX_IDENTITY = 64
"""Longest identity of a program, in bytes. A program that reconnects is recognised by it."""

MAX_ID = 2**63 - 1
"""Largest number of a request, a member or a session. Numbers are not negative: the negated number
of a request names the other end of its tunnel."""

MAX_SHARED_BODIES = 16
"""Small bodies of broadcasts or events that may share one message. It is also the longest array
that the unpacker accepts."""

# Numbers of things that one program or peer may have.

MAX_TOPICS = 16_384
"""Topics that one program may subscribe to."""

MAX_WATCHES = 1_024
"""Clusters that one program may watch."""

MAX_TUNNELS = 1_024
"""Tunnels that one program may have open."""

MAX_PENDING_REQUESTS = 65_536
"""Requests that one program or one peer may have pending."""

MAX_PARTIAL_BYTES = 64 * 1024 * 1024
"""Total size of the large bodies that a sender may have sent in part; one body may be of any size
when it is the only one. Receivers have room for as much, so that they never drop a body of a
correct sender."""

MAX_STREAMS = 1_024
"""Large bodies that a sender may have sent in part: as many as fit into MAX_PARTIAL_BYTES."""

MAX_TIMEOUT = 7 * 24 * 3600.0
"""Longest timeout of a request, in seconds."""

MAX_TIMEOUT_MS = int(MAX_TIMEOUT * 1000)
"""MAX_TIMEOUT in milliseconds, as it is sent."""

# Tunnels.

WINDOW = 4 * 1024 * 1024
"""Credit that each end of a tunnel grants, unless it is configured otherwise."""

MIN_WINDOW = 64 * 1024
"""Smallest window of a tunnel: one chunk can always be in transit."""

HTTP_WINDOW = 256 * 1024
"""Credit for each direction of a connection to an HTTP server, in bytes. It is smaller than WINDOW
because a member may hold many connections; it allows 250 MB/s at a round trip of 1 ms."""

HTTP_SEGMENT = CHUNK
"""Largest message of such a tunnel. Message boundaries have no meaning in the byte stream."""

# Reading and writing.

READ_SIZE = 256 * 1024
"""Most bytes that one read of a socket returns (the size of uvloop's buffer)."""

FANOUT_BATCH = 16 * 1024
"""Queued broadcasts, events and tunnel data are flushed at this size, before the loop iteration
ends, so that the receiver can start to read."""

REQUEST_BATCH = 4 * 1024
"""The same for requests and replies: smaller, because a caller waits for each."""

HIGH_WATER = 2 * 1024
"""Bytes that a transport may buffer. uvloop writes at once when more are buffered, instead of at
the end of the loop iteration. Messages that stay in the outbox can still be reordered."""


def is_name(name: object) -> bool:
    """Whether a value is a valid name of a cluster, a topic or a network."""
    if type(name) is not str:
        return False
    try:
        return 0 < len(name) <= MAX_NAME and len(name.encode()) <= MAX_NAME
    except UnicodeEncodeError:  # a lone surrogate
        return False


def check_name(value: object) -> str:
    """Check a received name. Raises Malformed."""
    if not is_name(value):
        raise Malformed("a name must be text of 1 to 255 bytes")
    return str(value)


def check_map(value: object, max_size: int) -> dict[str, str]:
    """Check received headers or metadata: text to text, `max_size` bytes. Raises Malformed."""
    if type(value) is not dict:
        raise Malformed("headers and metadata must be maps")
    size = 0
    for name, text in value.items():
        if type(name) is not str or type(text) is not str:
            raise Malformed("headers and metadata must be text")
        size += len(name.encode()) + len(text.encode())
    if size > max_size:
        raise Malformed(f"headers or metadata must not exceed {max_size} bytes")
    return value


def check_tunnel_data(total: object, data: object) -> None:
    """Check the fields of received tunnel data. Raises Malformed."""
    if type(data) is not bytes or not (total is None or (type(total) is int and total >= 0)):
        raise Malformed("tunnel data must be bytes, with a total size or nil")


def unpacker(max_buffer_size: int = CHUNK + MAX_HEADERS + 1024 + READ_SIZE) -> Unpacker:
    """Create a streaming unpacker whose memory use is bounded, whatever a client sends.

    `max_buffer_size` covers one message plus one read, in bytes. The C unpacker allocates an array
    as soon as it reads the array's header, and nests up to 1,024 levels: with msgpack's default
    limits, 2.5 KB on the wire allocate 33 MB.
    """
    return Unpacker(
        use_list=False,
        raw=False,
        strict_map_key=True,
        max_buffer_size=max_buffer_size,
        max_array_len=MAX_SHARED_BODIES,
        max_map_len=MAX_MAP_ENTRIES,
        max_ext_len=0,
        max_bin_len=CHUNK,
        max_str_len=MAX_HEADERS,
    )
