"""The client that tests the relay is itself to be trusted: what it writes, it reads."""

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
    Broken,
    Decoder,
    Kind,
    Layout,
    Op,
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
def test_what_is_written_is_read_however_it_is_cut(data: st.DataObject, layout: Layout) -> None:
    sent = data.draw(st.lists(packets(layout), max_size=8))
    octets = b"".join(encoded(*packet, layout=layout) for packet in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=8)))
    decoder = Decoder(layout)
    got = []
    for begin, end in zip([0, *cuts], [*cuts, len(octets)], strict=True):
        decoder.feed(octets[begin:end])
        got += list(decoder)
    assert got == sent
    assert decoder.rest == b""


def test_octet_by_octet_nothing_is_read_before_it_is_whole() -> None:
    octets = encoded(Op.REPLY, 2**63, b"x" * 200, layout=FROM_RELAY)
    decoder = Decoder()
    for octet in octets[:-1]:
        decoder.feed(bytes([octet]))
        assert list(decoder) == []
    decoder.feed(octets[-1:])
    assert list(decoder) == [(Op.REPLY, 2**63, b"x" * 200)]


# Byte for byte as the description has it, written by hand.
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


@pytest.mark.parametrize(("layout", "packet", "octets"), VECTORS.values(), ids=VECTORS)
def test_the_layout_is_that_of_the_description(
    layout: Layout, packet: tuple[Any, ...], octets: str
) -> None:
    assert encoded(*packet, layout=layout).startswith(bytes.fromhex(octets))


@pytest.mark.parametrize(
    "octets", [b"\x0e", b"\x05\x01\x02", b"\x02\x01\xff", b"\x0b" + b"\x80" * 10 + b"\x00"]
)
def test_what_breaks_the_protocol_is_not_read(octets: bytes) -> None:
    decoder = Decoder()
    decoder.feed(octets)
    with pytest.raises(Broken):
        list(decoder)
