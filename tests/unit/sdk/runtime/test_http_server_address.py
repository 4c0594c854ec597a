from __future__ import annotations

import pytest

import arke
from arke.runtime.http_server_address import parse_http_address


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("10.0.0.5:8000", "10.0.0.5:8000"),
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("[2001:db8::1]:65535", "[2001:db8::1]:65535"),
        (":8000", ":8000"),
        ("0.0.0.0:8000", ":8000"),
        ("[::]:8000", ":8000"),
    ],
)
def test_an_address_is_an_ip_and_a_port(text: str, written: str) -> None:
    assert str(parse_http_address(text)) == written


@pytest.mark.parametrize(
    "text",
    ["", "8000", "10.0.0.5", "10.0.0.5:", "10.0.0.5:0", "10.0.0.5:65536", "10.0.0.5:+80",
     "example.org:80", "localhost:80", "10.0.0.5:80/", "2001:db8::1:80", "[2001:db8::1]",
     "224.0.0.1:80", " 10.0.0.5:80", "10.0.0.5:80\n", "10.0.0.5:8\u0660"],
)  # fmt: skip
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        arke.Service("web", http=text)


def test_the_metadata_leaves_room_for_it() -> None:
    arke.Service("web", metadata={"a": "x" * 4095})
    with pytest.raises(ValueError, match="must not exceed"):
        arke.Service("web", metadata={"a": "x" * 4095}, http=":80")
