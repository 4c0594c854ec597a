from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.sticky_cookies import StickyCookies, cookie_name

SECRET = b"a secret of 32 bytes, more or less"
ADDRESS = BackendAddress("192.168.56.102", 63450)


def sticky(secret: bytes = SECRET, cluster: str = "web") -> StickyCookies:
    return StickyCookies("arke", secret, cluster)


def sent_back(line: bytes) -> bytes:
    """Return what a browser sends back for a Set-Cookie value: name and value."""
    return line.partition(b";")[0]


@given(
    st.sampled_from(["127.0.0.1", "2001:db8::1"]),
    st.integers(1, 65535),
    st.sampled_from(["", "0123456789abcdef/program[17]#3"]),
)
def test_cookie_round_trip(host: str, port: int, via: str) -> None:
    address = BackendAddress(host, port, via)
    line = sticky().cookie(address)
    assert sticky().read([sent_back(line)]) == address


def test_cookie_attributes() -> None:
    line = sticky().cookie(ADDRESS)
    assert line.startswith(b"arke=")
    assert line.endswith(b"; Path=/; HttpOnly; SameSite=Lax")
    assert sticky().cookie(ADDRESS, secure=True).endswith(b"; SameSite=Lax; Secure")
    with_path = StickyCookies("arke", SECRET, "web", b"/api").cookie(ADDRESS)
    assert b"; Path=/api;" in with_path


def test_cookie_hides_backend_address() -> None:
    line = sticky().cookie(ADDRESS)
    assert ADDRESS.host.encode() not in line
    assert sent_back(line) != sent_back(sticky().cookie(ADDRESS))


def test_cookie_is_found_among_others() -> None:
    cookie = sent_back(sticky().cookie(ADDRESS))
    assert sticky().read([b"a=1; b=2", b"xarke=3; " + cookie + b"; c=4"]) == ADDRESS
    assert sticky().read([b"a=1;" + cookie]) == ADDRESS


@pytest.mark.parametrize(
    "value",
    [b"", b"arke", b"arke=", b"arke=x", b"arke=192.168.56.102:63450", b"arke=" + b"A" * 90,
     b"arke=" + b"A" * 100_000, b"arke=\xff\xfe", b"; ; ;arke==;"],
)  # fmt: skip
def test_invalid_cookie_is_ignored(value: bytes) -> None:
    assert sticky().read([value]) is None


def test_cookie_of_another_secret_or_cluster_is_ignored() -> None:
    cookie = sent_back(sticky().cookie(ADDRESS))
    assert sticky(secret=b"another").read([cookie]) is None
    assert sticky(cluster="shop").read([cookie]) is None
    # A browser sends the cookies of all matching paths.
    other_cookie = sent_back(sticky(cluster="shop").cookie(ADDRESS))
    assert sticky().read([other_cookie + b"; " + cookie]) == ADDRESS


@given(st.data())
def test_modified_cookie_is_ignored(data: st.DataObject) -> None:
    cookie = bytearray(sent_back(sticky().cookie(ADDRESS)))
    # Not the last base64 digit: some of its bits are unused.
    index = data.draw(st.integers(5, len(cookie) - 2))
    cookie[index] ^= data.draw(st.integers(1, 255))
    assert sticky().read([bytes(cookie)]) is None


def test_at_most_four_cookies_are_decrypted() -> None:
    cookie = sent_back(sticky().cookie(ADDRESS))
    forged = b"arke=" + b"A" * 90
    assert sticky().read([b"; ".join([forged] * 3 + [cookie])]) == ADDRESS
    assert sticky().read([b"; ".join([forged] * 4 + [cookie])]) is None


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a;b", "ü", "a" * 65])
def test_invalid_cookie_name_raises(name: str) -> None:
    with pytest.raises(ValueError, match="must be a cookie name"):
        cookie_name(name)
