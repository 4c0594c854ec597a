"""Backends that die, lie, stall or are not there, and what a client gets then."""

from __future__ import annotations

import threading

import pytest

from support.http_rig import Connection, Rig
from support.relays import free_port

GET = b"GET / HTTP/1.1\r\nHost: example\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: example\r\nContent-Length: 4\r\n\r\nbody"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
FLAGS = ("-timeout", "2s")  # of the proxy


def good(connection: Connection) -> None:
    while head := connection.head():
        if b"Content-Length: 4" in head:
            connection.exactly(4)
        connection.send(OK)


def closes(connection: Connection) -> None:
    """Take a request and leave without a word."""
    connection.head()


def closed_port() -> str:
    return f"127.0.0.1:{free_port()}"


# Nobody to forward to.


def test_a_cluster_that_names_garbage(rig: Rig) -> None:
    rig.cluster.answers = ["example.com:80\r\nX: y"]
    response, body = rig.get()
    assert response.status == 502
    assert body == (
        b"Cluster web answered the request for a backend with b'example.com:80\\r\\nX: y', "
        b"which is neither IP nor IP:PORT.\n"
    )


def test_a_cluster_whose_member_raises(rig: Rig) -> None:
    rig.cluster.answers = [LookupError("secret")]
    response, body = rig.get()
    assert (response.status, response.getheader("retry-after")) == (503, "1")
    assert body == b"Cluster web did not name a backend: a member failed with LookupError.\n"


def test_a_cluster_that_answers_at_the_second_try(rig: Rig) -> None:
    (backend,) = rig.backends(good)
    rig.cluster.answers = [LookupError(), backend.address]
    assert rig.get()[1] == b"ok"


def test_the_proxy_s_own_answers_keep_the_connection(rig: Rig) -> None:
    connection = rig.connect()
    rig.cluster.answers = ["garbage"]
    connection.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert connection.head().startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    connection.send(POST)
    assert connection.response("POST")[0].status == 502
    rig.backends(good)
    connection.send(GET)
    assert connection.response()[1] == b"ok"


# Backends that cannot be reached.


def test_another_one_is_tried_even_for_a_post(rig: Rig) -> None:
    (backend,) = rig.backends(good)
    rig.cluster.answers = [closed_port(), backend.address]
    for request in (GET, POST, GET, POST):
        assert rig.exchange(request)[1] == b"ok"


def test_the_one_just_tried_is_not_tried_again(rig: Rig) -> None:
    (backend,) = rig.backends(good)
    closed = closed_port()
    rig.cluster.answers = [closed, closed, closed, backend.address]
    assert rig.get()[1] == b"ok"


def test_there_is_no_other_one(rig: Rig) -> None:
    closed = closed_port()
    rig.cluster.answers = [closed]
    for _ in range(2):  # the last one is tried each time
        response, body = rig.get()
        assert response.status == 502
        assert body == f"No backend answered: {closed} refuses connections.\n".encode()


def test_another_one_is_found_however_often_the_first_is_named(rig: Rig) -> None:
    (backend,) = rig.backends(good)
    rig.cluster.answers = [closed_port()] * 20 + [backend.address]
    assert rig.get()[1] == b"ok"


def test_what_could_not_be_reached_is_left_alone_for_a_while(rig: Rig) -> None:
    (backend,) = rig.backends(good)
    rig.cluster.answers = [closed_port(), closed_port(), closed_port(), backend.address]
    rig.get()  # finds out, and may find nothing else
    assert [rig.get()[1] for _ in range(4)] == [b"ok"] * 4


def test_three_are_tried_and_no_more(rig: Rig) -> None:
    ports = [closed_port() for _ in range(4)]
    rig.cluster.answers = ports
    response, body = rig.get()
    assert response.status == 502
    assert body.count(b"refuses connections") == 3


def test_a_body_that_arrives_meanwhile_is_not_lost(rig: Rig) -> None:
    (backend,) = rig.backends(good)
    rig.cluster.answers = [closed_port(), closed_port(), backend.address]
    connection = rig.connect()
    connection.send(POST[:-4])
    connection.send(b"body")
    assert connection.response("POST")[1] == b"ok"


# Backends that break before they have answered.


@pytest.mark.parametrize("request_", [GET, POST.replace(b"POST", b"PUT")])
def test_what_may_be_sent_twice_is_sent_to_another_one(rig: Rig, request_: bytes) -> None:
    rig.backends(closes, good)
    for _ in range(4):
        assert rig.exchange(request_)[1] == b"ok"


def test_a_backend_that_breaks_in_mid_head(rig: Rig) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-")

    rig.backends(script, good)
    assert [rig.get()[1] for _ in range(3)] == [b"ok"] * 3


def test_a_post_is_never_sent_twice(rig: Rig) -> None:
    rig.cluster.answers = ()
    heads = []

    def script(connection: Connection) -> None:
        heads.append(connection.head())
        connection.exactly(4)

    broken, _ = rig.backends(script, script)
    response, body = rig.exchange(POST, "POST")
    assert response.status == 502
    assert (
        body
        == (
            f"Backend {broken.address} closed the connection before it had answered, "
            "and the request may not be sent twice.\n"
        ).encode()
    )
    assert len(heads) == 1


def test_a_put_whose_body_is_no_longer_at_hand_is_not_sent_twice(rig: Rig) -> None:
    size = 100_000

    def script(connection: Connection) -> None:
        connection.head()
        connection.exactly(size)

    first, second = rig.backends(script, script)
    connection = rig.connect()
    connection.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
    connection.send(b"x" * size)
    assert connection.response("PUT")[0].status == 502
    assert first.connections + second.connections == 1


def test_a_kept_connection_that_is_closed_on_use(rig: Rig) -> None:
    """The backend gave up the connection just as the next request was sent."""

    def script(connection: Connection) -> None:
        connection.head()
        connection.send(OK)
        connection.head()

    (backend,) = rig.backends(script)
    connection = rig.connect()
    for _ in range(3):
        connection.send(GET)
        assert connection.response()[1] == b"ok"
    assert backend.connections == 3


def test_a_post_goes_out_on_a_connection_that_is_open(rig: Rig) -> None:
    """A kept connection that the backend has closed is noticed before anything is sent."""
    closed = threading.Event()

    def script(connection: Connection) -> None:
        if b"Content-Length: 4" in connection.head():
            connection.exactly(4)
        connection.send(OK)
        connection.close()
        closed.set()

    (backend,) = rig.backends(script)
    connection = rig.connect()
    for request in (GET, POST, POST):
        closed.clear()
        connection.send(request)
        assert connection.response()[1] == b"ok"
        assert closed.wait(30)
    assert backend.connections == 3


# Backends that break, or say no more, after an answer that is not the final one.

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def only_promises(connection: Connection) -> None:
    connection.head()
    connection.send(CONTINUE)
    connection.until(b"body")


def test_a_promise_is_no_answer(rig: Rig) -> None:
    rig.backends(only_promises)
    response, body = rig.exchange(POST, "POST")
    assert response.status == 502
    assert b"closed the connection before it had answered" in body


def test_a_promise_does_not_stand_in_the_way_of_another_try(rig: Rig) -> None:
    rig.backends(only_promises, good)
    request = POST.replace(b"POST", b"PUT")
    assert [rig.exchange(request)[1] for _ in range(4)] == [b"ok"] * 4


def test_a_promise_that_is_not_kept(rig: Rig) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(CONTINUE)
        connection.rest()

    (backend,) = rig.backends(script)
    response, body = rig.get()
    assert response.status == 504
    assert body == f"Backend {backend.address} did not answer within 2 s.\n".encode()


def test_promises_do_not_buy_time(rig: Rig) -> None:
    over = threading.Event()

    def script(connection: Connection) -> None:
        connection.head()
        while not over.wait(0.3):
            connection.send(CONTINUE)

    rig.backends(script)
    try:
        assert rig.get()[0].status == 504
    finally:
        over.set()


def test_promises_without_end(rig: Rig) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(CONTINUE * 101)
        connection.rest()

    (backend,) = rig.backends(script)
    response, body = rig.get()
    assert response.status == 502
    assert body.startswith(f"The answer of backend {backend.address} is refused: ".encode())


EXPECT = POST[:-4].replace(b"Host", b"Expect: 100-continue\r\nHost")


@pytest.mark.parametrize("hint", [b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
def test_a_promise_that_is_waited_for(rig: Rig, hint: bytes) -> None:
    """The client is right to send no body, and it is the backend that is silent."""

    def script(connection: Connection) -> None:
        connection.head()
        connection.send(hint)
        connection.rest()

    (backend,) = rig.backends(script)
    connection = rig.connect()
    connection.send(EXPECT)
    if hint:
        assert connection.head().startswith(b"HTTP/1.1 103 ")
    response, body = connection.response("POST")
    assert response.status == 504
    assert body == f"Backend {backend.address} did not answer within 2 s.\n".encode()


@pytest.mark.parametrize(("promise", "begun"), [(CONTINUE, b""), (b"", b"bo")])
def test_a_client_that_need_not_wait(rig: Rig, promise: bytes, begun: bytes) -> None:
    """It has been told to go on, or has gone on by itself, and then stands still."""

    def script(connection: Connection) -> None:
        connection.head()
        connection.send(promise)
        connection.rest()

    rig.backends(script)
    connection = rig.connect()
    connection.send(EXPECT + begun)
    if promise:
        assert connection.head() == b"HTTP/1.1 100 Continue\r\nVia: 1.1 arke\r\n\r\n"
    assert connection.response("POST")[0].status == 408


# Backends that break in mid-answer.


def test_the_log_says_that_it_was_in_mid_answer(rig: Rig) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")

    (backend,) = rig.backends(script)
    connection = rig.connect()
    connection.send(GET)
    line = f"backend {backend.address} closed the connection in mid-answer"
    rig.process.wait_for_line(line, 30)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", b"z\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", b"9\r\nx"),
        (b"HTTP/1.1 200 OK\r\n\r\nhalf", b""),
    ],
)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_half_an_answer_never_looks_whole(
    rig: Rig, begin: bytes, end: bytes, version: bytes
) -> None:
    read = threading.Event()

    def script(connection: Connection) -> None:
        connection.head()
        connection.send(begin)
        assert read.wait(30)
        connection.send(end)
        connection.reset()

    rig.backends(script)
    connection = rig.connect()
    connection.send(b"GET / HTTP/%b\r\nHost: a\r\n\r\n" % version)
    connection.until(b"half")
    read.set()
    with pytest.raises(ConnectionResetError):
        connection.rest()


# Backends that are silent, or talk nonsense.


def test_a_backend_that_never_answers(rig: Rig) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        assert connection.rest() == b""

    (backend,) = rig.backends(script)
    response, body = rig.get()
    assert response.status == 504
    assert body == f"Backend {backend.address} did not answer within 2 s.\n".encode()


def test_a_backend_that_stops_in_mid_body(rig: Rig) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        connection.rest()

    rig.backends(script)
    connection = rig.connect()
    connection.send(GET)
    connection.until(b"half")
    with pytest.raises(ConnectionResetError):
        connection.rest()


def test_a_client_that_stops_in_mid_body(rig: Rig) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.rest()

    rig.backends(script)
    connection = rig.connect()
    connection.send(POST[:-2])
    response, body = connection.response("POST")
    assert (response.status, response.getheader("connection")) == (408, "close")
    assert body == b"The request's body stood still for 2 s.\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    ],
)
def test_a_backend_that_talks_nonsense(rig: Rig, answer: bytes) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(answer)
        connection.rest()

    rig.backends(script)
    response, body = rig.get()
    assert response.status == 502
    assert body.endswith(b".\n")


def test_more_than_the_answer_is_not_taken_for_the_next_one(rig: Rig) -> None:
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

    def script(connection: Connection) -> None:
        while connection.head():
            connection.send(OK + evil)

    (backend,) = rig.backends(script)
    connection = rig.connect()
    for _ in range(5):
        connection.send(GET)
        assert connection.response()[1] == b"ok"
    assert backend.connections == 5


def test_what_comes_unasked_is_not_taken_for_an_answer(rig: Rig) -> None:
    answered = threading.Event()

    def script(connection: Connection) -> None:
        connection.head()
        connection.send(OK)
        assert answered.wait(30)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        connection.rest()

    (backend,) = rig.backends(script)
    connection = rig.connect()
    connection.send(GET)
    assert connection.response()[1] == b"ok"
    answered.set()
    rig.process.wait_for_line(f"{backend.address} sent what nobody asked for", 30)
    connection.send(GET)
    assert connection.response()[1] == b"ok"
    assert backend.connections == 2
