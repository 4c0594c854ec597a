"""What the client gets when backends fail, stall, are missing or send malformed responses."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from support.backends import GET, OK
from support.connection import Connection
from support.deployment import Deployment
from support.ports import free_port
from support.proxy_harness import ProxyHarness
from support.raw_http2 import RawHttp2
from support.waiting import LIMIT

POST = b"POST / HTTP/1.1\r\nHost: example\r\nContent-Length: 4\r\n\r\nbody"
FLAGS = ("-timeout", "2s")  # of the proxy


def read_body_and_respond_ok(connection: Connection) -> None:
    while head := connection.read_head():
        if b"Content-Length: 4" in head:
            connection.read_exactly(4)
        connection.send(OK)


def close_without_response(connection: Connection) -> None:
    connection.read_head()


def refusing_address() -> str:
    """Return an address that refuses connections."""
    return f"127.0.0.1:{free_port()}"


# No usable backend.


def test_invalid_backend_address_is_502(harness: ProxyHarness) -> None:
    harness.cluster.answers = ["example.com:80\r\nX: y"]
    response, body = harness.get()
    assert response.status == 502
    assert body == (
        b"Cluster web answered the request for a backend with b'example.com:80\\r\\nX: y', "
        b"which is neither IP nor IP:PORT.\n"
    )


def test_handler_exception_of_member_is_503(harness: ProxyHarness) -> None:
    harness.cluster.answers = [LookupError("secret")]
    response, body = harness.get()
    assert (response.status, response.getheader("retry-after")) == (503, "1")
    assert body == b"Cluster web did not name a backend: a member failed with LookupError.\n"


def test_cluster_is_asked_again_after_handler_exception(harness: ProxyHarness) -> None:
    (backend,) = harness.start_backends(read_body_and_respond_ok)
    harness.cluster.answers = [LookupError(), backend.address]
    assert harness.get()[1] == b"ok"


def test_client_connection_stays_open_after_error_responses(harness: ProxyHarness) -> None:
    connection = harness.connect()
    harness.cluster.answers = ["garbage"]
    connection.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert connection.read_head().startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    connection.send(POST)
    assert connection.read_response("POST")[0].status == 502
    harness.start_backends(read_body_and_respond_ok)
    connection.send(GET)
    assert connection.read_response()[1] == b"ok"


# Backends that cannot be reached.


def test_unreachable_backend_is_retried_on_another_even_for_post(harness: ProxyHarness) -> None:
    (backend,) = harness.start_backends(read_body_and_respond_ok)
    harness.cluster.answers = [refusing_address(), backend.address]
    for request in (GET, POST, GET, POST):
        assert harness.exchange(request)[1] == b"ok"


def test_retry_skips_tried_backend(harness: ProxyHarness) -> None:
    (backend,) = harness.start_backends(read_body_and_respond_ok)
    refusing = refusing_address()
    harness.cluster.answers = [refusing, refusing, refusing, backend.address]
    assert harness.get()[1] == b"ok"


def test_unreachable_backend_without_alternative_is_502(harness: ProxyHarness) -> None:
    refusing = refusing_address()
    harness.cluster.answers = [refusing]
    for _ in range(2):  # an ejected backend is tried if there is no other
        response, body = harness.get()
        assert response.status == 502
        assert body == f"No backend answered: {refusing} refused the connection.\n".encode()


def test_other_backend_is_found_after_repeated_answers_of_failed_one(harness: ProxyHarness) -> None:
    (backend,) = harness.start_backends(read_body_and_respond_ok)
    harness.cluster.answers = [refusing_address()] * 20 + [backend.address]
    assert harness.get()[1] == b"ok"


def test_unreachable_backend_is_ejected(harness: ProxyHarness) -> None:
    (backend,) = harness.start_backends(read_body_and_respond_ok)
    harness.cluster.answers = [*(refusing_address() for _ in range(3)), backend.address]
    harness.get()  # ejects the refusing backends, and may fail
    assert [harness.get()[1] for _ in range(4)] == [b"ok"] * 4


def test_at_most_three_backends_are_tried(harness: ProxyHarness) -> None:
    harness.cluster.answers = [refusing_address() for _ in range(4)]
    response, body = harness.get()
    assert response.status == 502
    assert body.count(b"refused the connection") == 3


def test_body_received_while_connecting_is_sent(harness: ProxyHarness) -> None:
    (backend,) = harness.start_backends(read_body_and_respond_ok)
    harness.cluster.answers = [refusing_address(), refusing_address(), backend.address]
    connection = harness.connect()
    connection.send(POST[:-4])
    connection.send(b"body")
    assert connection.read_response("POST")[1] == b"ok"


# Backends that fail before they answer.


@pytest.mark.parametrize("request_", [GET, POST.replace(b"POST", b"PUT")])
def test_idempotent_request_is_retried_on_another_backend(
    harness: ProxyHarness, request_: bytes
) -> None:
    harness.start_backends(close_without_response, read_body_and_respond_ok)
    for _ in range(4):
        assert harness.exchange(request_)[1] == b"ok"


def test_request_is_retried_when_backend_closes_within_response_head(harness: ProxyHarness) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-")

    harness.start_backends(script, read_body_and_respond_ok)
    assert [harness.get()[1] for _ in range(3)] == [b"ok"] * 3


def test_post_is_never_sent_twice(harness: ProxyHarness) -> None:
    harness.cluster.answers = ()
    heads = []

    def script(connection: Connection) -> None:
        heads.append(connection.read_head())
        connection.read_exactly(4)

    broken, _ = harness.start_backends(script, script)
    response, body = harness.exchange(POST, "POST")
    assert response.status == 502
    assert (
        body
        == (
            f"Backend {broken.address} closed the connection before it answered, "
            "and the request may not be retried.\n"
        ).encode()
    )
    assert len(heads) == 1


def test_put_with_unbuffered_body_is_not_retried(harness: ProxyHarness) -> None:
    size = 100_000

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.read_exactly(size)

    first, second = harness.start_backends(script, script)
    connection = harness.connect()
    connection.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
    connection.send(b"x" * size)
    assert connection.read_response("PUT")[0].status == 502
    assert first.connections + second.connections == 1


def test_pooled_connection_closed_on_use_is_retried(harness: ProxyHarness) -> None:
    """The backend closes the pooled connection when it receives the next request."""

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(OK)
        connection.read_head()

    (backend,) = harness.start_backends(script)
    connection = harness.connect()
    for _ in range(3):
        connection.send(GET)
        assert connection.read_response()[1] == b"ok"
    assert backend.connections == 3


def test_post_is_not_sent_on_a_closed_pooled_connection(harness: ProxyHarness) -> None:
    """The proxy detects a closed pooled connection before it sends the request."""
    closed = threading.Event()

    def script(connection: Connection) -> None:
        if b"Content-Length: 4" in connection.read_head():
            connection.read_exactly(4)
        connection.send(OK)
        connection.close()
        closed.set()

    (backend,) = harness.start_backends(script)
    connection = harness.connect()
    for request in (GET, POST, POST):
        closed.clear()
        connection.send(request)
        assert connection.read_response()[1] == b"ok"
        assert closed.wait(30)
    assert backend.connections == 3


# Backends that fail or stall after an interim response.

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def send_100_continue_and_close(connection: Connection) -> None:
    connection.read_head()
    connection.send(CONTINUE)
    connection.read_until(b"body")


def test_close_after_interim_response_is_502(harness: ProxyHarness) -> None:
    harness.start_backends(send_100_continue_and_close)
    response, body = harness.exchange(POST, "POST")
    assert response.status == 502
    assert b"closed the connection before it answered" in body


def test_request_is_retried_after_interim_response(harness: ProxyHarness) -> None:
    harness.start_backends(send_100_continue_and_close, read_body_and_respond_ok)
    request = POST.replace(b"POST", b"PUT")
    assert [harness.exchange(request)[1] for _ in range(4)] == [b"ok"] * 4


def test_interim_response_without_final_response_is_504(harness: ProxyHarness) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(CONTINUE)
        connection.read_to_end()

    (backend,) = harness.start_backends(script)
    response, body = harness.get()
    assert response.status == 504
    assert body == f"Backend {backend.address} did not answer within 2 s.\n".encode()


def test_interim_responses_do_not_extend_the_timeout(harness: ProxyHarness) -> None:
    timed_out = threading.Event()

    def script(connection: Connection) -> None:
        connection.read_head()
        while not timed_out.wait(0.3):
            connection.send(CONTINUE)

    harness.start_backends(script)
    try:
        assert harness.get()[0].status == 504
    finally:
        timed_out.set()


def test_endless_interim_responses_are_502(harness: ProxyHarness) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(CONTINUE * 101)
        connection.read_to_end()

    (backend,) = harness.start_backends(script)
    response, body = harness.get()
    assert response.status == 502
    assert body.startswith(f"The response of backend {backend.address} is rejected: ".encode())


EXPECT = POST[:-4].replace(b"Host", b"Expect: 100-continue\r\nHost")


@pytest.mark.parametrize("hint", [b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
def test_missing_100_continue_is_504(harness: ProxyHarness, hint: bytes) -> None:
    """The client waits for 100 Continue, so the backend causes the timeout: not 408."""

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(hint)
        connection.read_to_end()

    (backend,) = harness.start_backends(script)
    connection = harness.connect()
    connection.send(EXPECT)
    if hint:
        assert connection.read_head().startswith(b"HTTP/1.1 103 ")
    response, body = connection.read_response("POST")
    assert response.status == 504
    assert body == f"Backend {backend.address} did not answer within 2 s.\n".encode()


@pytest.mark.parametrize(("interim", "body_start"), [(CONTINUE, b""), (b"", b"bo")])
def test_client_that_stalls_after_100_continue_or_body_start_is_408(
    harness: ProxyHarness, interim: bytes, body_start: bytes
) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(interim)
        connection.read_to_end()

    harness.start_backends(script)
    connection = harness.connect()
    connection.send(EXPECT + body_start)
    if interim:
        assert connection.read_head() == b"HTTP/1.1 100 Continue\r\nVia: 1.1 arke\r\n\r\n"
    assert connection.read_response("POST")[0].status == 408


# Backends that fail within a response.


def test_incomplete_response_is_logged(harness: ProxyHarness) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")

    (backend,) = harness.start_backends(script)
    connection = harness.connect()
    connection.send(GET)
    line = (
        f"backend failed backend={backend.address} "
        'reason="closed the connection before the end of its response'
    )
    harness.process.wait_for_line(line, 30)


@pytest.mark.parametrize(
    ("response_start", "malformed_rest"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", b"z\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", b"9\r\nx"),
        (b"HTTP/1.1 200 OK\r\n\r\nhalf", b""),
    ],
)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_incomplete_response_resets_client(
    harness: ProxyHarness, response_start: bytes, malformed_rest: bytes, version: bytes
) -> None:
    start_received = threading.Event()

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(response_start)
        assert start_received.wait(30)
        connection.send(malformed_rest)
        connection.reset()

    harness.start_backends(script)
    connection = harness.connect()
    connection.send(b"GET / HTTP/%b\r\nHost: a\r\n\r\n" % version)
    connection.read_until(b"half")
    start_received.set()
    with pytest.raises(ConnectionResetError):
        connection.read_to_end()


# Silent backends and malformed responses.


def test_silent_backend_is_504(harness: ProxyHarness) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        assert connection.read_to_end() == b""

    (backend,) = harness.start_backends(script)
    response, body = harness.get()
    assert response.status == 504
    assert body == f"Backend {backend.address} did not answer within 2 s.\n".encode()


def test_backend_that_stalls_within_body_resets_client(harness: ProxyHarness) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        connection.read_to_end()

    harness.start_backends(script)
    connection = harness.connect()
    connection.send(GET)
    connection.read_until(b"half")
    with pytest.raises(ConnectionResetError):
        connection.read_to_end()


def test_client_that_stalls_within_body_is_408(harness: ProxyHarness) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.read_to_end()

    harness.start_backends(script)
    connection = harness.connect()
    connection.send(POST[:-2])
    response, body = connection.read_response("POST")
    assert (response.status, response.getheader("connection")) == (408, "close")
    assert body == b"The request's body stalled for 2 s.\n"


@pytest.mark.parametrize(
    "malformed",
    [
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    ],
)
def test_malformed_response_is_502(harness: ProxyHarness, malformed: bytes) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(malformed)
        connection.read_to_end()

    harness.start_backends(script)
    response, body = harness.get()
    assert response.status == 502
    assert body.endswith(b".\n")


def test_excess_data_is_not_taken_for_the_next_response(harness: ProxyHarness) -> None:
    excess = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond"

    def script(connection: Connection) -> None:
        while connection.read_head():
            connection.send(OK + excess)

    (backend,) = harness.start_backends(script)
    connection = harness.connect()
    for _ in range(5):
        connection.send(GET)
        assert connection.read_response()[1] == b"ok"
    assert backend.connections == 5


def test_unexpected_data_is_not_taken_for_a_response(harness: ProxyHarness) -> None:
    response_received = threading.Event()

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(OK)
        assert response_received.wait(30)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond")
        connection.read_to_end()

    (backend,) = harness.start_backends(script)
    connection = harness.connect()
    connection.send(GET)
    assert connection.read_response()[1] == b"ok"
    response_received.set()
    harness.process.wait_for_line(
        f"backend sent data without a request backend={backend.address}", 30
    )
    connection.send(GET)
    assert connection.read_response()[1] == b"ok"
    assert backend.connections == 2


# Error pages without -error-details.


@pytest.mark.parametrize("client_kind", ["HTTP/1.1", "HTTP/2"])
def test_error_page_names_no_backend_and_log_has_the_reason(
    deployment: Deployment, client_kind: str
) -> None:
    address = refusing_address()
    flags = ("-choose", "static", "-backend", address)
    proxy = deployment.proxy(*flags, error_details=False)
    with closing(proxy.connect()) as connection:
        if client_kind == "HTTP/1.1":
            connection.send(GET)
            _, body = connection.read_response()
        else:
            client = RawHttp2(connection)
            client.get(1)
            _, body = client.read_response(1)
    assert body.startswith(b"No backend answered. Request id: ")
    request_id = body.rstrip(b".\n").rpartition(b" ")[2].decode()
    line = f"request failed .*{address} refused the connection.* request_id={request_id}"
    proxy.process.wait_for_line(line, LIMIT)
