from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.sticky import Sticky, cookie_name

SECRET = b"a secret of 32 bytes, more or less"
ADDRESS = BackendAddress("192.168.56.102", 63450)


def sticky(secret: bytes = SECRET, cluster: str = "web") -> Sticky:
    return Sticky("arke", secret, cluster)


def cookie(line: bytes) -> bytes:
    """What a browser sends back."""
    return line.partition(b";")[0]


@given(
    st.sampled_from(["127.0.0.1", "2001:db8::1"]),
    st.integers(1, 65535),
    st.sampled_from(["", "0123456789abcdef/program[17]#3"]),
)
def test_what_was_written_is_read(host: str, port: int, via: str) -> None:
    address = BackendAddress(host, port, via)
    line = sticky().cookie(address)
    assert sticky().read([cookie(line)]) == address


def test_the_line_says_how_the_browser_keeps_it() -> None:
    line = sticky().cookie(ADDRESS)
    assert line.startswith(b"arke=")
    assert line.endswith(b"; Path=/; HttpOnly; SameSite=Lax")
    assert sticky().cookie(ADDRESS, secure=True).endswith(b"; SameSite=Lax; Secure")
    of_a_path = Sticky("arke", SECRET, "web", b"/api").cookie(ADDRESS)
    assert b"; Path=/api;" in of_a_path


def test_it_does_not_say_where_backends_are() -> None:
    line = sticky().cookie(ADDRESS)
    assert ADDRESS.host.encode() not in line
    assert cookie(line) != cookie(sticky().cookie(ADDRESS))


def test_it_stands_among_others() -> None:
    ours = cookie(sticky().cookie(ADDRESS))
    assert sticky().read([b"a=1; b=2", b"xarke=3; " + ours + b"; c=4"]) == ADDRESS
    assert sticky().read([b"a=1;" + ours]) == ADDRESS


@pytest.mark.parametrize(
    "value",
    [b"", b"arke", b"arke=", b"arke=x", b"arke=192.168.56.102:63450", b"arke=" + b"A" * 90,
     b"arke=" + b"A" * 100_000, b"arke=\xff\xfe", b"; ; ;arke==;"],
)  # fmt: skip
def test_what_is_not_ours_is_ignored(value: bytes) -> None:
    assert sticky().read([value]) is None


def test_another_secret_and_another_cluster_are_not_ours() -> None:
    ours = cookie(sticky().cookie(ADDRESS))
    assert sticky(secret=b"another").read([ours]) is None
    assert sticky(cluster="shop").read([ours]) is None
    # A browser that knows a cookie for each of two paths sends both.
    theirs = cookie(sticky(cluster="shop").cookie(ADDRESS))
    assert sticky().read([theirs + b"; " + ours]) == ADDRESS


@given(st.data())
def test_a_changed_cookie_is_not_ours(data: st.DataObject) -> None:
    ours = bytearray(cookie(sticky().cookie(ADDRESS)))
    place = data.draw(st.integers(5, len(ours) - 2))  # the last digit has bits that say nothing
    ours[place] ^= data.draw(st.integers(1, 255))
    assert sticky().read([bytes(ours)]) is None


def test_a_request_full_of_cookies_costs_four_looks() -> None:
    ours = cookie(sticky().cookie(ADDRESS))
    forged = b"arke=" + b"A" * 90
    assert sticky().read([b"; ".join([forged] * 3 + [ours])]) == ADDRESS
    assert sticky().read([b"; ".join([forged] * 4 + [ours])]) is None


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a;b", "ü", "a" * 65])
def test_what_cannot_name_a_cookie(name: str) -> None:
    with pytest.raises(ValueError, match="must be the name of a cookie"):
        cookie_name(name)
