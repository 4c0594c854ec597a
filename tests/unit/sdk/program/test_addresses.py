from __future__ import annotations

import pytest

import arke
from arke.program import addresses
from arke.program.addresses import HostPort


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("10.0.0.5:8000", "10.0.0.5:8000"),
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("[2001:DB8::1]:65535", "[2001:db8::1]:65535"),
        (":8000", ":8000"),
        ("0.0.0.0:8000", ":8000"),
        ("[::]:8000", ":8000"),
        ("[0:0:0:0:0:0:0:0]:8000", ":8000"),
        ("[::ffff:10.0.0.5]:8000", "10.0.0.5:8000"),
        ("[::ffff:7f00:1]:8000", "127.0.0.1:8000"),
        ("[0:0:0:0:0:FFFF:127.0.0.1]:8000", "127.0.0.1:8000"),
        ("[::ffff:0.0.0.0]:8000", ":8000"),
    ],
)
def test_ip_port_is_normalised(text: str, written: str) -> None:
    assert str(addresses.ip_port(text)) == written


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.168.56.102", HostPort("192.168.56.102", 63450)),
        ("192.168.56.102:80", HostPort("192.168.56.102", 80)),
        ("[::1]", HostPort("::1", 63450)),
        ("::1", HostPort("::1", 63450)),
        ("0.0.0.0", HostPort("", 63450)),
    ],
)
def test_ip_port_may_have_a_default_port(text: str, address: HostPort) -> None:
    assert addresses.ip_port(text, 63450) == address


@pytest.mark.parametrize(
    ("text", "depends"),
    [
        ("127.0.0.1:1", True),
        ("127.255.255.254:1", True),
        ("[::1]:1", True),
        ("[0:0:0:0:0:0:0:1]:1", True),
        ("[::ffff:127.0.0.1]:1", True),
        ("[::FFFF:7F00:0001]:1", True),
        ("169.254.169.254:1", True),
        ("[::ffff:169.254.169.254]:1", True),
        ("[fe80::1]:1", True),
        ("[fe80::1%eth0]:1", True),
        ("0.0.0.1:1", True),
        ("10.0.0.5:1", False),
        ("128.0.0.1:1", False),
        ("[2001:db8::1]:1", False),
        ("[fd00::1]:1", False),
        ("[::ffff:10.0.0.5]:1", False),
    ],
)
def test_address_that_means_another_computer_on_each_machine(text: str, depends: bool) -> None:
    assert addresses.depends_on_machine(addresses.ip_port(text).host) is depends


INVALID = [
    *("", "8000", "10.0.0.5", "10.0.0.5:", "10.0.0.5:0", "10.0.0.5:65536", "10.0.0.5:+80", "[]:80"),
    *("example.org:80", "localhost:80", "10.0.0.5:80/", "2001:db8::1:80", "[2001:db8::1]"),
    *("224.0.0.1:80", " 10.0.0.5:80", "10.0.0.5:80\n", "10.0.0.5:8\u0660"),
]


@pytest.mark.parametrize("text", INVALID)
def test_invalid_ip_port_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must "):
        addresses.ip_port(text)


def test_a_service_rejects_an_invalid_http_address() -> None:
    with pytest.raises(ValueError, match=r"^http must .* \(got 'localhost:80'\)$"):
        arke.Service("web", http="localhost:80")


def test_the_http_address_counts_towards_the_metadata_limit() -> None:
    arke.Service("web", metadata={"a": "x" * 4095})
    with pytest.raises(ValueError, match="must not exceed"):
        arke.Service("web", metadata={"a": "x" * 4095}, http=":80")


@pytest.mark.parametrize("address", ["node7:1", "[::1]:2", ":3"])
def test_listen_address_is_written_as_it_was_given(address: str) -> None:
    assert str(addresses.listen_address(address)) == address


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (addresses.port, "1", 1),
        (addresses.port, "65535", 65535),
        (addresses.any_port, "0", 0),
        (addresses.host_port, "node7:55556", ("node7", 55556)),
        (addresses.host_port, "[fe80::1]:7", ("fe80::1", 7)),
        (addresses.listen_address, ":8080", ("", 8080)),
    ],
)
def test_ports_and_addresses_are_parsed(parse, text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "texts"),
    [
        (addresses.port, ["", "0", "65536", "-1", "+1", " 1", "1_0", "٣", "1.0", "9" * 5000]),
        (addresses.any_port, ["65536", "-1"]),
        (addresses.host_port, ["", "a", "a:", ":1", "a:0", "a:b", "::1:1", "[a]:1", "http://a:1"]),
        (addresses.listen_address, ["8080", "::1", ":65536"]),
    ],
)
def test_invalid_ports_and_addresses_are_rejected(parse, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(ValueError, match=r"^must "):
            parse(text)
