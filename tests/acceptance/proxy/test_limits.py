"""Limits per client address, on idle time, and on a request's total time."""

from __future__ import annotations

import contextlib
import itertools
import select
import ssl
import threading
import time
from pathlib import Path

import pytest
from hyperframe.frame import GoAwayFrame, PingFrame

from support.backends import GET, respond_with
from support.certificates import write_certificate
from support.connection import Connection, connect_tls
from support.deployment import Deployment
from support.proxy_process import tls_port
from support.raw_http2 import RawHttp2
from support.waiting import LIMIT, wait_until


def test_max_per_client_flag(deployment: Deployment) -> None:
    backend = deployment.backend(respond_with("one"))
    flags = ("-choose", "static", "-backend", backend.address, "-max-per-client", "2")
    proxy = deployment.proxy(*flags)
    seats = [proxy.connect() for _ in range(2)]
    for seat in seats:
        seat.send(GET)
        assert seat.read_response()[1] == b"one"
    response, body = proxy.request()
    assert response.status == 503
    assert response.headers["Connection"] == "close"
    assert (
        body == b"The proxy has 2 connections from this address, which is its limit per address.\n"
    )
    seats[0].close()
    wait_until(lambda: proxy.body() == "one")
    seats[1].close()


@pytest.mark.parametrize("by_tls", [False, True])
def test_idle_http2_connection_is_closed(
    deployment: Deployment, tmp_path: Path, by_tls: bool
) -> None:
    certificate = write_certificate(tmp_path, "a.example", file="a")
    flags = [
        "-choose",
        "static",
        "-backend",
        deployment.backend(respond_with("one")).address,
        "-idle",
        "300ms",
    ]
    proxy = deployment.proxy(*flags, "-tls-listen", "127.0.0.1:0", "-cert", certificate)
    if by_tls:
        context = ssl.create_default_context(cafile=tmp_path / "a.pem")
        context.set_alpn_protocols(["h2"])
        connection = connect_tls(tls_port(proxy.process), context, "a.example")
    else:
        connection = proxy.connect()
    client = RawHttp2(connection)
    for stream in (1, 3):
        client.get(stream)
        assert client.read_response(stream)[1] == b"one"
    ping = PingFrame(0, b"12345678")
    for _ in range(200):
        client.send(ping)  # a PING does not extend the limit
        frame = client.read_until((PingFrame, GoAwayFrame))
        if isinstance(frame, GoAwayFrame):
            break
        time.sleep(0.05)  # else the PINGs would be a flood
    assert isinstance(frame, GoAwayFrame)
    assert (frame.error_code, frame.last_stream_id) == (0, 3)
    assert client.read_until_goaway() == -1  # nothing more
    connection.close()


@pytest.mark.parametrize("pieces", [[b"\r\n"], [b"\r", b"\n"]])
def test_empty_lines_do_not_extend_idle_limit(deployment: Deployment, pieces: list[bytes]) -> None:
    """A client could else keep its connection forever."""
    backend = deployment.backend(respond_with("one"))
    flags = ("-choose", "static", "-backend", backend.address, "-idle", "500ms")
    connection = deployment.proxy(*flags).connect()
    connection.send(GET)
    assert connection.read_response()[1] == b"one"
    lines = itertools.chain.from_iterable(itertools.repeat(pieces, 200))
    while not select.select([connection.sock], [], [], 0.05)[0]:
        connection.send(next(lines))
    assert connection.read_to_end() == b""
    connection.close()


def test_total_time_limit(deployment: Deployment) -> None:
    """The response makes progress all the time: one chunk after another."""
    going = threading.Event()

    def drip(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not going.wait(0.05):
            connection.send(b"1\r\nx\r\n")

    backend = deployment.backend(drip)
    proxy = deployment.proxy("-choose", "static", "-backend", backend.address, "-total", "500ms")
    connection = proxy.connect()
    connection.send(GET)
    connection.read_head()
    with pytest.raises(ConnectionResetError):
        connection.read_to_end()
    sentence = "did not complete the response within 0.5 s of the request"
    proxy.process.wait_for_line(f'backend={backend.address} reason="{sentence}', LIMIT)
    connection.close()
    going.set()


def test_total_time_limit_for_slow_upload(deployment: Deployment) -> None:
    """The error names the total time, as the body never stalled."""

    def reads(connection: Connection) -> None:
        connection.read_head()
        connection.read_to_end()

    backend = deployment.backend(reads)
    proxy = deployment.proxy("-choose", "static", "-backend", backend.address, "-total", "500ms")
    connection = proxy.connect()
    connection.send(b"POST / HTTP/1.1\r\nHost: example\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not select.select([connection.sock], [], [], 0.05)[0]:
        connection.send(b"1\r\nx\r\n")
    response, body = connection.read_response()
    assert (response.status, body) == (408, b"The request took longer than 0.5 s in total.\n")
    connection.close()


def test_total_time_limit_for_silent_backend(deployment: Deployment) -> None:
    done = threading.Event()

    def silent(connection: Connection) -> None:
        connection.read_head()
        done.wait(LIMIT)

    backend = deployment.backend(silent)
    proxy = deployment.proxy("-choose", "static", "-backend", backend.address, "-total", "300ms")
    response, body = proxy.request()
    done.set()
    assert response.status == 504
    assert b"did not answer within 0.3 s" in body


def test_client_that_reads_no_responses_is_disconnected(deployment: Deployment) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 60_000 + b"\r\n\r\n"

    def script(connection: Connection) -> None:
        connection.read_head()
        with contextlib.suppress(ConnectionError):
            connection.send(hint * 99)
            connection.read_to_end()

    flags = (
        "-choose",
        "static",
        "-backend",
        deployment.backend(script).address,
        "-timeout",
        "500ms",
    )
    proxy = deployment.proxy(*flags, "-access-log", "-")
    connection = proxy.connect()
    connection.send(GET)
    proxy.process.wait_for_line(r'" 408 ', LIMIT)
    with contextlib.suppress(ConnectionError):
        connection.read_to_end()
    connection.close()
