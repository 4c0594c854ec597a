from __future__ import annotations

import pytest

from arke_proxy.backends.address import BackendAddress, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.168.56.102", BackendAddress("192.168.56.102", 63450)),
        ("192.168.56.102:80", BackendAddress("192.168.56.102", 80)),
        ("[fe80::1]:80", BackendAddress("fe80::1", 80)),
        ("[::1]", BackendAddress("::1", 63450)),
        ("::1", BackendAddress("::1", 63450)),
        ("2001:DB8::1", BackendAddress("2001:db8::1", 63450)),
    ],
)
def test_valid_address_is_parsed(text: str, address: BackendAddress) -> None:
    assert parse_address(text, 63450) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", ":80", "[]:80", "localhost", "localhost:80", "1.2.3", "1.2.3.4:", "1.2.3.4:x"),
        *("1.2.3.4:0", "1.2.3.4:65536", "1.2.3.4:80:80", "1.2.3.4 :80", "http://1.2.3.4/", "[::1"),
        *("1.2.3.4:\u0661", "0.0.0.0", "[::]:80", "224.0.0.1", "1.2.3.4\r\nX: y"),
    ],
)
def test_invalid_address_raises(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_address(text, 63450)


def test_address_round_trip() -> None:
    assert str(BackendAddress("1.2.3.4", 80)) == "1.2.3.4:80"
    assert str(BackendAddress("::1", 80)) == "[::1]:80"
