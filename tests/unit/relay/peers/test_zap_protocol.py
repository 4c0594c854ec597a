from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from arke_relay.peers.keys import CurvePair
from arke_relay.peers.zap_protocol import answer

KEY = bytes(range(32))
REQUEST = [b"router-id", b"", b"1.0", b"7", b"data", b"192.168.56.102", b"", b"CURVE", KEY]


def admit_all(domain: str, key: bytes, address: str) -> str | None:
    return "node"


def admit_none(domain: str, key: bytes, address: str) -> str | None:
    return None


def changed(place: int, *frames: bytes) -> list[bytes]:
    return [*REQUEST[:place], *frames, *REQUEST[place + 1 :]]


def status_of(frames: list[bytes]) -> bytes:
    reply = answer(frames, admit_all)
    assert reply is not None
    *_, status, _, user, metadata = reply
    assert (user == b"") is (status != b"200")
    assert metadata == b""
    return status


def test_admitted_key_is_returned_as_user_id() -> None:
    expected = [b"router-id", b"", b"1.0", b"7", b"200", b"OK", KEY.hex().encode(), b""]
    assert answer(REQUEST, admit_all) == expected


def test_unknown_key_is_rejected() -> None:
    expected = [b"router-id", b"", b"1.0", b"7", b"400", b"not admitted", b"", b""]
    assert answer(REQUEST, admit_none) == expected


def test_decision_gets_domain_key_and_address() -> None:
    decisions: list[tuple[str, bytes, str]] = []

    def decide(*arguments: *tuple[str, bytes, str]) -> str | None:
        decisions.append(arguments)
        return "node"

    answer(REQUEST, decide)
    assert decisions == [("data", KEY, "192.168.56.102")]


@pytest.mark.parametrize("decision", [None, True, False, 1, b"node", admit_all])
def test_only_a_text_admits(decision: object) -> None:
    reply = answer(REQUEST, lambda *_: decision)  # type: ignore[arg-type,return-value]
    assert reply is not None
    assert reply[4] == b"400"


def test_exception_of_the_decision_propagates() -> None:
    def decide(*_: object) -> str | None:
        raise LookupError

    with pytest.raises(LookupError):
        answer(REQUEST, decide)


@pytest.mark.parametrize("mechanism", [b"NULL", b"PLAIN", b"GSSAPI", b"curve", b""])
def test_other_mechanisms_are_rejected(mechanism: bytes) -> None:
    assert status_of(changed(7, mechanism)) == b"400"
    assert status_of([*changed(7, mechanism), b"password"]) == b"400"


@pytest.mark.parametrize(
    "frames",
    [
        changed(2, b"2.0"),
        changed(2, b""),
        REQUEST[:4],
        REQUEST[:7],
        REQUEST[:8],
        changed(8, KEY[:-1]),
        changed(8, KEY + b"\0"),
        changed(8, KEY.hex().encode()),
        [*REQUEST, KEY],
        changed(4, b"d" * 256),
        changed(5, b"1" * 256),
    ],
)
def test_malformed_request_gets_status_500(frames: list[bytes]) -> None:
    assert status_of(frames) == b"500"


@pytest.mark.parametrize(
    "frames",
    [[], [b""], [b"", b""], [b"id"], REQUEST[:2], REQUEST[:3], REQUEST[1:], changed(3, b"r" * 256)],
)
def test_request_without_an_id_gets_no_reply(frames: list[bytes]) -> None:
    assert answer(frames, admit_all) is None


def test_domain_that_is_not_ascii_is_escaped() -> None:
    decisions: list[str] = []
    answer(changed(4, b"dat\xe1"), lambda domain, *_: decisions.append(domain))
    assert decisions == ["dat\\xe1"]


@given(
    frames=st.lists(st.binary(max_size=300) | st.sampled_from(REQUEST), max_size=12)
    | st.integers(0, 8).flatmap(lambda n: st.binary(max_size=64).map(lambda b: changed(n, b))),
)
def test_random_frames_get_a_valid_reply_or_none(frames: list[bytes]) -> None:
    reply = answer(frames, admit_all)
    if reply is None:
        return
    delimiter = reply.index(b"")
    version, request, status, _, user, metadata = reply[delimiter + 1 :]
    assert reply[:delimiter] == frames[:delimiter]
    assert (version, request) == (b"1.0", frames[delimiter + 2])
    assert status in {b"200", b"400", b"500"}
    assert user in {b"", frames[-1].hex().encode()}
    assert metadata == b""


@pytest.mark.parametrize("decide", [admit_all, admit_none])
def test_libzmq_accepts_the_reply(decide: Callable[[str, bytes, str], str | None]) -> None:
    server, client = CurvePair.fresh(os.urandom), CurvePair.fresh(os.urandom)
    with zmq.Context() as context:
        handler = context.socket(zmq.ROUTER)
        handler.bind("inproc://zeromq.zap.01")
        thread = threading.Thread(target=answer_one, args=(handler, decide))
        pull, push = context.socket(zmq.PULL), context.socket(zmq.PUSH)
        monitor = push.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH,
        )
        pull.zap_domain, pull.curve_server, pull.curve_secretkey = b"data", True, server.secret
        push.curve_serverkey = server.public
        push.curve_publickey, push.curve_secretkey = client.public, client.secret
        for socket in (handler, pull, push, monitor):
            socket.linger, socket.rcvtimeo = 0, 10_000
        thread.start()
        push.connect(f"tcp://127.0.0.1:{pull.bind_to_random_port('tcp://127.0.0.1')}")
        push.send(b"hello")
        event = int.from_bytes(monitor.recv_multipart()[0][:2], "little")
        if decide is admit_all:
            assert event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            assert pull.recv(copy=False).get("User-Id") == client.public.hex()
        else:
            assert event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
        thread.join(10)
        push.disable_monitor()
        for socket in (handler, pull, push, monitor):
            socket.close()


def answer_one(handler: zmq.Socket[bytes], decide: Callable[..., str | None]) -> None:
    reply = answer(handler.recv_multipart(), decide)
    assert reply is not None
    handler.send_multipart(reply)
