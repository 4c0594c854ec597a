"""Limits on clients, and on the time of a request in all."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from http_rig import Connection
from publishers import GET, Site, says, site

from relays import LIMIT, eventually


@pytest.fixture
def web() -> Iterator[Site]:
    with site() as made:
        yield made


def test_one_address_gets_no_more_than_its_share(web: Site) -> None:
    back_end = web.back_end(says("one"))
    flags = ("-choose", "static", "-backend", back_end.address, "-max-per-client", "2")
    proxy = web.proxy(*flags)
    seats = [proxy.connect() for _ in range(2)]
    for seat in seats:
        seat.send(GET)
        assert seat.response()[1] == b"one"
    response, body = proxy.exchange()
    assert response.status == 503
    assert response.headers["Connection"] == "close"
    assert body == b"The proxy serves 2 connections from one address, and no more.\n"
    seats[0].close()
    eventually(lambda: proxy.body() == "one")
    seats[1].close()


def test_a_request_has_a_total_time(web: Site) -> None:
    """It moves all the while: a chunk whenever the client has read one."""
    going = threading.Event()

    def drip(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not going.wait(0.05):
            connection.send(b"1\r\nx\r\n")

    back_end = web.back_end(drip)
    proxy = web.proxy("-choose", "static", "-backend", back_end.address, "-total", "500ms")
    connection = proxy.connect()
    connection.send(GET)
    connection.head()
    with pytest.raises(ConnectionResetError):
        connection.rest()
    connection.close()
    going.set()


def test_a_silent_back_end_uses_up_the_total_time(web: Site) -> None:
    done = threading.Event()

    def silent(connection: Connection) -> None:
        connection.head()
        done.wait(LIMIT)

    back_end = web.back_end(silent)
    proxy = web.proxy("-choose", "static", "-backend", back_end.address, "-total", "300ms")
    response, body = proxy.exchange()
    done.set()
    assert response.status == 504
    assert b"did not answer within 0.3 s" in body
