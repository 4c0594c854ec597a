from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke_relay.peers.validation import is_integer, is_node_id, is_text, unpack


@pytest.mark.parametrize("value", [None, True, -1, 1.5, "s" * 1024, b"b" * 2048, [[1]] * 16, {}])
def test_values_within_bounds_are_unpacked(value: object) -> None:
    assert unpack(msgpack.packb(value), limit=8192) == value


@pytest.mark.parametrize(
    "value",
    ["s" * 1025, b"b" * 2049, [1] * 17, {1: 1}, {b"": 1}, msgpack.ExtType(1, b"x"), [[[1] * 17]]],
)
def test_values_out_of_bounds_are_rejected(value: object) -> None:
    with pytest.raises(ValueError, match="not exactly one well-formed value"):
        unpack(msgpack.packb(value), limit=8192)


def test_limit_applies_to_all_bytes() -> None:
    assert unpack(msgpack.packb(b"123"), limit=5) == b"123"
    with pytest.raises(ValueError, match=r"at most 4 bytes \(got 5\)"):
        unpack(msgpack.packb(b"123"), limit=4)


@pytest.mark.parametrize("data", [b"", b"\x92\x01", b"\x01\x01", b"\xc1", b"\xa1\xff"])
def test_data_that_is_not_exactly_one_value_is_rejected(data: bytes) -> None:
    with pytest.raises(ValueError, match="not exactly one well-formed value"):
        unpack(data, limit=8192)


@pytest.mark.parametrize(
    "header", [b"\x91", b"\x9f", b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\x81"]
)
def test_deeply_nested_value_is_rejected(header: bytes) -> None:
    with pytest.raises(ValueError, match="not exactly one well-formed value"):
        unpack(header * (8192 // len(header)), limit=8192)


@given(data=st.binary(max_size=500))
def test_random_bytes_give_a_value_or_value_error(data: bytes) -> None:
    try:
        unpack(data, limit=400)
    except ValueError:
        return
    assert len(data) <= 400


def test_true_is_not_an_integer() -> None:
    assert is_integer(1, 1, 1)
    assert not is_integer(True, 0, 1)


def test_text_length_is_measured_in_bytes() -> None:
    assert is_text("ßß", 4, 4)
    assert not is_text("ßß", 0, 3)
    assert not is_text("\udcff", 0, 9)
    assert not is_text(b"", 0, 9)


def test_node_id_is_16_lowercase_hex_digits() -> None:
    assert is_node_id("0123456789abcdef")
    for wrong in ("0123456789ABCDEF", "0123456789abcde", "0123456789abcdef\n", "0" * 17, 0, None):
        assert not is_node_id(wrong)
