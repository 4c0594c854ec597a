"""Every bound of the wire, each with its reason, and an unpacker that keeps them."""

from __future__ import annotations

from msgpack import Unpacker

from arke.wire.malformed import Malformed

CHUNK = 64 * 1024
"""Largest body in one message. Larger ones are cut, so that nobody's 16 bytes wait for 16 MiB."""

MAX_MESSAGE = 16 * 1024 * 1024
"""Largest body anywhere, unless set otherwise at the relay."""

MAX_NAME = 255
"""Longest cluster or topic name, in UTF-8 octets."""

MAX_TOPICS = 16_384
"""Topics one program may subscribe to."""

MAX_ENTRIES = 64
"""Entries of a map: headers, or metadata."""

MAX_METADATA = 4 * 1024
"""What a member says of itself when it registers, in octets of text: every peer keeps it."""

MAX_WATCHES = 1_024
"""Clusters one program may watch."""

WINDOW = 4 * 1024 * 1024
"""Credit that each side of a tunnel grants, unless set otherwise."""

LEAST_WINDOW = 64 * 1024
"""No tunnel has less: one chunk can always be under way."""

HTTP_WINDOW = 256 * 1024
"""Octets under way in each direction of a connection to an HTTP server; less than messages may
have, for a member may hold many. It is 250 MB/s where a round trip takes a millisecond."""

HTTP_PIECE = CHUNK
"""Octets of one message of such a connection: a cut of its stream that means nothing by itself."""

MAX_TUNNELS = 1_024
"""Tunnels one program may have."""

LONGEST_CALL = 7 * 24 * 3600.0
"""Seconds that anybody may wait for an answer."""

LONGEST_CALL_MS = int(LONGEST_CALL * 1000)
"""The same in milliseconds, as it travels."""

MAX_NUMBER = 2**63 - 1
"""Largest number of a call, a member or a session: its negative can be sent too, and is. Numbers
are not negative, or a call could pass for what its other end calls a tunnel."""

MAX_REASON = 200
"""Longest reason, in characters: why something was refused, or ended."""

MAX_HEADERS = 16 * 1024
"""All headers of a message together, in octets of their text."""

MAX_HELLO = 4 * 1024
"""What a stranger may send before it has been welcomed."""

MAX_IDENTITY = 64
"""What a program is known by when it attaches again, in octets."""

READ = 256 * 1024
"""What one read of a socket brings at most (uvloop's own buffer)."""

BATCH = 16 * 1024
"""Octets of events that leave before the turn ends, so that the receiver reads meanwhile."""

MAX_CASTS = 16
"""Bodies of broadcasts or events that one message may carry: what arrays are bounded to."""

SMALL_BATCH = 4 * 1024
"""The same for requests and replies, where somebody waits for each."""

HIGH_WATER = 2 * 1024
"""What a transport may keep. uvloop writes more than that at once, not at the end of the turn; and
what the transport does not hold, the outbox can still put in a better order."""

MAX_CALLS = 65_536
"""Calls one program, or one peer, may have open at once."""

HALF_SENT = 64 * 1024 * 1024
"""Octets of large bodies one sender may have half sent at once, or else one body of any length.
Receivers have room for as much, so that nothing an honest sender began is ever given up."""

MAX_STREAMS = 1_024
"""Large bodies one sender may have half sent at once: as many as fit into HALF_SENT."""


def is_name(name: object) -> bool:
    """Whether something can name a cluster, a topic or a network."""
    if type(name) is not str:
        return False
    try:
        return 0 < len(name) <= MAX_NAME and len(name.encode()) <= MAX_NAME
    except UnicodeEncodeError:  # a lone surrogate
        return False


def check_name(value: object) -> str:
    """A name as it came. Raises Malformed."""
    if not is_name(value):
        raise Malformed("a name is 1 to 255 octets of text")
    return str(value)


def check_map(value: object, most: int) -> dict[str, str]:
    """Headers or metadata as they came. Raises Malformed unless they are text, `most` octets."""
    if type(value) is not dict:
        raise Malformed("headers and metadata are maps")
    size = 0
    for name, text in value.items():
        if type(name) is not str or type(text) is not str:
            raise Malformed("headers and metadata are text")
        size += len(name.encode()) + len(text.encode())
    if size > most:
        raise Malformed(f"headers or metadata over {most} octets")
    return value


def unpacker(buffer: int = CHUNK + MAX_HEADERS + 1024 + READ) -> Unpacker:
    """A streaming unpacker in which a stranger's few octets cannot ask for much memory.

    `buffer` is one message plus one read, in octets. The C unpacker allocates an array when it
    meets its header, nested up to 1,024 deep: with its default bounds 2.5 KB on the wire cost 33
    MB.
    """
    return Unpacker(
        use_list=False,
        raw=False,
        strict_map_key=True,
        max_buffer_size=buffer,
        max_array_len=MAX_CASTS,
        max_map_len=MAX_ENTRIES,
        max_ext_len=0,
        max_bin_len=CHUNK,
        max_str_len=MAX_HEADERS,
    )
