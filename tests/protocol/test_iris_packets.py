"""The packet codec of the test client: it reads what it writes, and matches the specification."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.iris_packets import (
    BINARY,
    BOOL,
    FROM_RELAY,
    STRING,
    TO_RELAY,
    VARINT,
    Decoder,
    Kind,
    Layout,
    Op,
    ProtocolViolation,
    encoded,
)

EDGES = [0, 1, 127, 128, 16383, 16384, 2**32, 2**63, 2**64 - 1]
VARINTS = st.sampled_from(EDGES) | st.integers(0, 2**64 - 1)
BODIES = st.binary(max_size=300)
TEXTS = st.text(max_size=100)
VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    VARINT: VARINTS,
    BOOL: st.booleans(),
    BINARY: BODIES,
    STRING: TEXTS,
}
OUTCOMES: dict[tuple[bool, Op], st.SearchStrategy[Any]] = {
    (True, Op.REPLY): BODIES | TEXTS,
    (False, Op.REPLY): st.none() | BODIES | TEXTS,
    (False, Op.TUNNEL_CONFIRM): st.none() | VARINTS,
}


@st.composite
def packets(draw: st.DrawFn, layout: Layout) -> tuple[Any, ...]:
    op = Op(draw(st.sampled_from(sorted(layout))))
    return (
        op,
        *(
            draw(VALUES[kind] if kind in VALUES else OUTCOMES[layout is TO_RELAY, op])
            for kind in layout[op]
        ),
    )


@settings(deadline=None)
@given(st.data(), st.sampled_from([TO_RELAY, FROM_RELAY]))
def test_written_packets_are_read_from_fragments(drawn: st.DataObject, layout: Layout) -> None:
    sent = drawn.draw(st.lists(packets(layout), max_size=8))
    data = b"".join(encoded(*packet, layout=layout) for packet in sent)
    cuts = sorted(drawn.draw(st.lists(st.integers(0, len(data)), max_size=8)))
    decoder = Decoder(layout)
    received = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        decoder.feed(data[start:end])
        received += list(decoder)
    assert received == sent
    assert decoder.rest == b""


def test_partial_packet_is_not_returned() -> None:
    data = encoded(Op.REPLY, 2**63, b"x" * 200, layout=FROM_RELAY)
    decoder = Decoder()
    for byte in data[:-1]:
        decoder.feed(bytes([byte]))
        assert list(decoder) == []
    decoder.feed(data[-1:])
    assert list(decoder) == [(Op.REPLY, 2**63, b"x" * 200)]


# The encodings of the specification, written by hand.
VECTORS = {
    "attach": (TO_RELAY, (Op.INIT, "iris-client-magic", "v1.0-draft2", ""), "00 11 6972"),
    "request": (TO_RELAY, (Op.REQUEST, 300, "ab", b"?", 5000), "04 ac02 02 6162 01 3f 8827"),
    "answer": (TO_RELAY, (Op.REPLY, 7, b"ok"), "05 07 01 02 6f6b"),
    "fault": (TO_RELAY, (Op.REPLY, 7, "no"), "05 07 00 02 6e6f"),
    "answered": (FROM_RELAY, (Op.REPLY, 7, b"ok"), "05 07 00 01 02 6f6b"),
    "failed": (FROM_RELAY, (Op.REPLY, 7, "no"), "05 07 00 00 02 6e6f"),
    "timed out": (FROM_RELAY, (Op.REPLY, 7, None), "05 07 01"),
    "confirmed": (FROM_RELAY, (Op.TUNNEL_CONFIRM, 1, 65536), "0a 01 00 808004"),
    "not confirmed": (FROM_RELAY, (Op.TUNNEL_CONFIRM, 1, None), "0a 01 01"),
    "last id": (TO_RELAY, (Op.TUNNEL_CLOSE, 2**64 - 1), "0d ff ff ff ff ff ff ff ff ff 01"),
}


@pytest.mark.parametrize(("layout", "packet", "data"), VECTORS.values(), ids=VECTORS)
def test_layout_matches_the_specification(
    layout: Layout, packet: tuple[Any, ...], data: str
) -> None:
    assert encoded(*packet, layout=layout).startswith(bytes.fromhex(data))


@pytest.mark.parametrize(
    "data", [b"\x0e", b"\x05\x01\x02", b"\x02\x01\xff", b"\x0b" + b"\x80" * 10 + b"\x00"]
)
def test_malformed_packet_is_rejected(data: bytes) -> None:
    decoder = Decoder()
    decoder.feed(data)
    with pytest.raises(ProtocolViolation):
        list(decoder)
