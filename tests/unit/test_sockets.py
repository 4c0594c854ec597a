from __future__ import annotations

import asyncio

import zmq

from arke_relay.peers.sockets import Watched, drain, endpoint
from relays import LIMIT


async def test_an_error_in_a_callback_does_not_make_a_socket_deaf() -> None:
    loop = asyncio.get_running_loop()
    errors: list[BaseException] = []
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    seen: list[bytes] = []
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.bind("inproc://there")

        def take() -> None:
            seen.append(pull.recv(zmq.NOBLOCK))
            if len(seen) == 1:
                raise LookupError("a fault of ours")

        with context.socket(zmq.PUSH) as push:
            push.connect("inproc://there")
            for message in (b"1", b"2", b"3"):
                push.send(message)
            watched = Watched(loop, pull, lambda: drain(take))
            async with asyncio.timeout(LIMIT):
                while len(seen) < 3:
                    await asyncio.sleep(0.001)
            watched.close()
    assert seen == [b"1", b"2", b"3"]
    assert [str(error) for error in errors] == ["a fault of ours"]


def test_endpoints_name_where_to_and_where_from() -> None:
    assert endpoint("192.0.2.1", 7) == "tcp://192.0.2.1:7"
    assert endpoint("192.0.2.1", 7, "192.0.2.9") == "tcp://192.0.2.9:0;192.0.2.1:7"
    assert endpoint("2001:db8::1", 7, "2001:db8::9") == "tcp://[2001:db8::9]:0;[2001:db8::1]:7"
