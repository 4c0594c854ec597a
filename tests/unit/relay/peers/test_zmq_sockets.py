from __future__ import annotations

import asyncio

import zmq

from arke_relay.peers.zmq_sockets import SocketWatcher, drain, endpoint
from support.relays import LIMIT

MESSAGES = 20


async def test_socket_still_receives_after_an_error_in_a_callback() -> None:
    loop = asyncio.get_running_loop()
    errors: list[BaseException] = []
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    seen: list[bytes] = []
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.bind("inproc://there")

        def take() -> None:
            seen.append(pull.recv(zmq.NOBLOCK))
            if len(seen) < MESSAGES:
                raise LookupError("a fault of ours")

        with context.socket(zmq.PUSH) as push:
            push.connect("inproc://there")
            for message in range(MESSAGES):
                push.send(bytes([message]))
            watcher = SocketWatcher(loop, pull, lambda: drain(take))
            async with asyncio.timeout(LIMIT):
                while len(seen) < MESSAGES:
                    await asyncio.sleep(0.001)
            watcher.close()
    assert seen == [bytes([message]) for message in range(MESSAGES)]
    assert [str(error) for error in errors] == ["a fault of ours"] * (MESSAGES - 1)


def test_endpoint_contains_source_and_destination() -> None:
    assert endpoint("192.0.2.1", 7) == "tcp://192.0.2.1:7"
    assert endpoint("192.0.2.1", 7, "192.0.2.9") == "tcp://192.0.2.9:0;192.0.2.1:7"
    assert endpoint("2001:db8::1", 7, "2001:db8::9") == "tcp://[2001:db8::9]:0;[2001:db8::1]:7"
