"""Limits: connections per client address, idle time, and the total time of a request."""

from __future__ import annotations

import contextlib
import itertools
import select
import ssl
import threading
import time
from pathlib import Path

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame, PingFrame

from support.backend_scripts import never_respond
from support.backends import GET, respond_with
from support.certificates import write_certificate
from support.connection import Connection, connect_tls
from support.deployment import Deployment
from support.proxy_process import tls_port
from support.raw_http2 import RawHttp2
from support.waiting import LIMIT, wait_until


def test_connections_over_max_per_client_are_rejected(deployment: Deployment) -> None:
    backend = deployment.backend(respond_with("one"))
    flags = ("-choose", "static", "-backend", backend.address, "-max-per-client", "2")
    proxy = deployment.proxy(*flags)
    connections = [proxy.connect() for _ in range(2)]
    for connection in connections:
        connection.send(GET)
        assert connection.read_response()[1] == b"one"
    response, body = proxy.request()
    assert response.status == 503
    assert response.headers["Connection"] == "close"
    assert (
        body == b"The proxy has 2 connections from this address, which is its limit per address.\n"
    )
    connections[0].close()
    wait_until(lambda: proxy.body() == "one")
    connections[1].close()


@pytest.mark.parametrize("use_tls", [False, True])
def test_idle_http2_connection_is_closed(
    deployment: Deployment, tmp_path: Path, use_tls: bool
) -> None:
    certificate = write_certificate(tmp_path, "a.example", file="a")
    flags = [
        *("-choose", "static", "-backend", deployment.backend(respond_with("one")).address),
        *("-idle", "300ms"),
    ]
    proxy = deployment.proxy(*flags, "-tls-listen", "127.0.0.1:0", "-cert", certificate)
    if use_tls:
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
        client.send(ping)  # a PING does not extend the idle time limit
        frame = client.read_until((PingFrame, GoAwayFrame))
        if isinstance(frame, GoAwayFrame):
            break
        time.sleep(0.05)  # slower than the flood limit for PINGs
    assert isinstance(frame, GoAwayFrame)
    assert (frame.error_code, frame.last_stream_id) == (ErrorCodes.NO_ERROR, 3)
    assert client.read_until_goaway() == -1  # no second GOAWAY
    connection.close()


@pytest.mark.parametrize("pieces", [[b"\r\n"], [b"\r", b"\n"]])
def test_empty_lines_do_not_extend_idle_limit(deployment: Deployment, pieces: list[bytes]) -> None:
    """Otherwise a client could keep its connection forever."""
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


def test_total_time_limit_resets_client_of_slow_response(deployment: Deployment) -> None:
    """The backend sends a chunk every 50 ms, so the response never stalls."""
    stopped = threading.Event()

    def send_chunks_slowly(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not stopped.wait(0.05):
            connection.send(b"1\r\nx\r\n")

    backend = deployment.backend(send_chunks_slowly)
    proxy = deployment.proxy("-choose", "static", "-backend", backend.address, "-total", "500ms")
    connection = proxy.connect()
    connection.send(GET)
    connection.read_head()
    with pytest.raises(ConnectionResetError):
        connection.read_to_end()
    reason = "did not complete the response within 0.5 s of the request"
    proxy.process.wait_for_line(f'backend={backend.address} reason="{reason}', LIMIT)
    connection.close()
    stopped.set()


def test_total_time_limit_of_slow_upload_is_408(deployment: Deployment) -> None:
    """The error names the total time limit: the body never stalls."""

    backend = deployment.backend(never_respond)
    proxy = deployment.proxy("-choose", "static", "-backend", backend.address, "-total", "500ms")
    connection = proxy.connect()
    connection.send(b"POST / HTTP/1.1\r\nHost: example\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not select.select([connection.sock], [], [], 0.05)[0]:
        connection.send(b"1\r\nx\r\n")
    response, body = connection.read_response()
    assert (response.status, body) == (408, b"The request took longer than 0.5 s in total.\n")
    connection.close()


def test_total_time_limit_of_silent_backend_is_504(deployment: Deployment) -> None:
    backend = deployment.backend(never_respond)
    proxy = deployment.proxy("-choose", "static", "-backend", backend.address, "-total", "300ms")
    response, body = proxy.request()
    assert response.status == 504
    assert b"did not answer within 0.3 s" in body


def test_client_that_reads_no_responses_is_disconnected(deployment: Deployment) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 60_000 + b"\r\n\r\n"

    def send_hints(connection: Connection) -> None:
        connection.read_head()
        with contextlib.suppress(ConnectionError):
            connection.send(hint * 99)
            connection.read_to_end()

    flags = (
        *("-choose", "static", "-backend", deployment.backend(send_hints).address),
        *("-timeout", "500ms"),
    )
    proxy = deployment.proxy(*flags, "-access-log", "-")
    connection = proxy.connect()
    connection.send(GET)
    proxy.process.wait_for_line(r'" 408 ', LIMIT)
    with contextlib.suppress(ConnectionError):
        connection.read_to_end()
    connection.close()
