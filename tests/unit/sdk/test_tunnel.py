"""Both ends of a tunnel: delivery, flow control, closing and malformed data."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arke.errors import MessageTooLarge, TunnelClosed
from arke.tunnel import Tunnel
from arke.wire.limits import CHUNK, MIN_WINDOW
from arke.wire.messages import TunnelClose
from support.tunnel_wire import Wire

LIMIT = 20.0
MIB = 1024 * 1024


async def within(work: Awaitable[Any]) -> Any:
    async with asyncio.timeout(LIMIT):
        return await work


async def receive_all(end: Tunnel) -> list[bytes]:
    return [message async for message in end]


def body(number: int, size: int) -> bytes:
    return (number.to_bytes(4, "big") * (size // 4 + 1))[:size]


SIZES = [0, 1, 100, 4095, 4096, 4097, 20_000, CHUNK - 1, CHUNK, CHUNK + 1, 300_000, MIB]


# Delivery.


@pytest.mark.parametrize("window", [MIN_WINDOW, 4 * MIB])
@pytest.mark.parametrize("size", SIZES)
async def test_message_of_any_size_is_delivered_unchanged(size: int, window: int) -> None:
    one, other = Wire(window).ends
    await within(one.send(body(1, size)) if size <= window // 2 else transfer(one, other, size))
    if size <= window // 2:
        assert await within(other.recv()) == body(1, size)


async def transfer(one: Tunnel, other: Tunnel, size: int) -> None:
    sending = asyncio.ensure_future(one.send(body(1, size)))
    assert await other.recv() == body(1, size)
    await sending


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.sampled_from(SIZES), max_size=30),
    window=st.sampled_from([MIN_WINDOW, 200_000, 4 * MIB]),
    pauses=st.lists(st.integers(0, 3), min_size=1, max_size=10),
)
def test_messages_are_delivered_in_order(sizes: list[int], window: int, pauses: list[int]) -> None:
    async def play() -> None:
        wire = Wire(window)
        one, other = wire.ends

        async def send() -> None:
            for number, size in enumerate(sizes):
                await one.send(body(number, size))
                for _ in range(pauses[number % len(pauses)]):
                    await asyncio.sleep(0)
            one.close_send()

        async def receive() -> list[bytes]:
            got = []
            async for message in other:
                got.append(message)
                for _ in range(pauses[-1 - len(got) % len(pauses)]):
                    await asyncio.sleep(0)
            return got

        got, _ = await asyncio.gather(within(receive()), within(send()))
        assert got == [body(number, size) for number, size in enumerate(sizes)]
        assert wire.most_held <= window

    asyncio.run(play())


async def test_small_messages_of_one_iteration_share_a_data_message() -> None:
    wire = Wire(4 * MIB)
    one, other = wire.ends
    for number in range(1000):
        await one.send(body(number, 64))
    for number in range(1000):
        assert await within(other.recv()) == body(number, 64)
    assert len(wire.sizes) <= 6
    assert sum(wire.sizes) == 1000 * (64 + 2)


async def test_both_directions_carry_messages_concurrently() -> None:
    one, other = Wire().ends

    async def talk(end: Tunnel) -> int:
        async def send() -> None:
            for number in range(50):
                await end.send(body(number, 30_000))
            end.close_send()

        sending = asyncio.ensure_future(send())
        got = await receive_all(end)
        await sending
        assert got == [body(number, 30_000) for number in range(50)]
        return len(got)

    assert await within(asyncio.gather(talk(one), talk(other))) == [50, 50]


async def test_concurrent_senders_share_a_tunnel_end() -> None:
    one, other = Wire().ends
    sizes = [10, 5_000, CHUNK, 200_000]
    sending = [asyncio.ensure_future(one.send(body(n, sizes[n % 4]))) for n in range(40)]
    got = [await within(other.recv()) for _ in range(40)]
    await within(asyncio.gather(*sending))
    assert sorted(got) == sorted(body(n, sizes[n % 4]) for n in range(40))


# Flow control.


async def test_stalled_reader_stops_its_writer_at_the_window() -> None:
    wire = Wire(4 * MIB)
    one, other = wire.ends
    sent = 0

    async def send() -> None:
        nonlocal sent
        while True:
            await one.send(bytes(50_000))
            sent += 50_000

    sending = asyncio.ensure_future(send())
    before = -1
    while sent != before:
        before = sent
        for _ in range(50):
            await asyncio.sleep(0)
    assert 3 * MIB < sent <= 4 * MIB
    assert not sending.done()
    for _ in range(100):
        await within(other.recv())
    assert sent > before
    sending.cancel()


async def test_message_larger_than_the_window_is_reassembled_and_the_next_waits() -> None:
    """The receiver holds the message being reassembled and at most one window beside it."""
    wire = Wire(MIN_WINDOW, largest=2 * MIB)
    one, other = wire.ends
    big = body(5, 2 * MIB)

    async def send() -> None:
        await one.send(big)
        for number in range(100):
            await one.send(body(number, 10_000))
        one.close_send()

    sending = asyncio.ensure_future(send())
    assert await within(other.recv()) == big
    for _ in range(200):
        await asyncio.sleep(0)
    assert not sending.done()
    assert sum(len(data) for data, *_ in other._received) <= MIN_WINDOW
    assert len(await within(receive_all(other))) == 100
    await within(sending)


# Messages that are not delivered.


async def test_message_over_the_peer_limit_raises_at_the_sender() -> None:
    one, other = Wire(theirs=1000, largest=MIB).ends
    with pytest.raises(MessageTooLarge, match="1000"):
        await one.send(bytes(5000))
    await one.send(b"after")
    assert await within(other.recv()) == b"after"


@pytest.mark.parametrize("size", [10, 30_000, 200_000])
async def test_cancelled_send_is_not_delivered_and_the_next_message_is(
    size: int,
) -> None:
    wire = Wire()
    one, other = wire.ends
    for _ in range(3):
        sending = asyncio.ensure_future(one.send(bytes(3 * MIB)))
        for _ in range(10):
            await asyncio.sleep(0)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    reading = asyncio.ensure_future(other.recv())
    await within(one.send(body(9, size)))
    assert await within(reading) == body(9, size)
    for number in range(30):  # all credit was granted again
        later = asyncio.ensure_future(other.recv())
        await within(one.send(body(number, 50_000)))
        assert await within(later) == body(number, 50_000)


# Closing.


async def test_half_close_ends_one_direction() -> None:
    wire = Wire()
    one, other = wire.ends
    await one.send(b"question")
    one.close_send()
    one.close_send()
    assert await within(receive_all(other)) == [b"question"]
    with pytest.raises(TunnelClosed):
        await other.recv()
    await other.send(b"answer")
    other.close_send()
    assert await within(receive_all(one)) == [b"answer"]
    with pytest.raises(TunnelClosed, match="sending side"):
        await one.send(b"more")
    assert sorted(wire.removed) == [-7, 7]


async def test_messages_sent_before_close_are_delivered_and_sending_fails() -> None:
    wire = Wire()
    one, other = wire.ends
    async with one:
        for number in range(3):
            await one.send(body(number, 20_000))
    assert await within(receive_all(other)) == [body(number, 20_000) for number in range(3)]
    with pytest.raises(TunnelClosed, match="other end"):
        await other.send(b"too late")
    with pytest.raises(TunnelClosed, match="this end"):
        await one.send(b"after")
    with pytest.raises(TunnelClosed, match="this end"):
        await one.recv()
    await other.close()
    assert set(wire.removed) == {-7, 7}


async def test_exception_in_the_block_aborts_with_type_and_text() -> None:
    wire = Wire()
    one, other = wire.ends
    with pytest.raises(ValueError, match="no"):  # noqa: PT012 — the block is what is tested
        async with one:
            await one.send(b"before")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            raise ValueError("no")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await other.recv() == b"before"
    for call in (other.recv, lambda: other.send(b"x")):
        with pytest.raises(TunnelClosed, match="ValueError: no") as caught:
            await call()
        assert caught.value.type == "ValueError"
    with pytest.raises(TunnelClosed):
        await receive_all(other)
    assert set(wire.removed) == {-7, 7}


@pytest.mark.parametrize("how", ["abort", "break off", "close"])
async def test_close_wakes_waiting_senders_and_receivers(how: str) -> None:
    one, other = Wire().ends
    waiting = asyncio.ensure_future(one.send(bytes(3 * MIB))), asyncio.ensure_future(one.recv())
    for _ in range(10):
        await asyncio.sleep(0)
    if how == "abort":
        other.abort("enough")
    elif how == "close":
        await other.close()
    else:
        one.fail(TunnelClosed("the relay has stopped"))
    for each in waiting:
        with pytest.raises(TunnelClosed):
            await within(each)


async def test_sender_that_yielded_notices_the_close() -> None:
    window = 4 * CHUNK  # after that much a sender yields to the loop
    one, _ = Wire(window).ends
    await asyncio.sleep(0)
    sending = asyncio.ensure_future(one.send(body(1, 2 * window)))
    await asyncio.sleep(0)
    one.fail(TunnelClosed("the relay has stopped"))
    with pytest.raises(TunnelClosed, match="the relay has stopped"):
        await within(sending)


async def test_close_waits_for_a_message_being_sent() -> None:
    one, other = Wire().ends
    sending = asyncio.ensure_future(one.send(body(3, 300_000)))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(one.close())
    assert await within(receive_all(other)) == [body(3, 300_000)]
    await within(asyncio.gather(sending, closing))


async def test_second_receiving_task_raises() -> None:
    one, _ = Wire().ends
    reading = asyncio.ensure_future(one.recv())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one task"):
        await one.recv()
    reading.cancel()


async def test_cancelled_receive_loses_no_message() -> None:
    one, other = Wire().ends
    for _ in range(3):
        reading = asyncio.ensure_future(other.recv())
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    await one.send(b"still here")
    assert await within(other.recv()) == b"still here"


async def test_message_that_is_not_bytes_raises() -> None:
    one, _ = Wire().ends
    with pytest.raises(TypeError, match="str"):
        await one.send("text")  # type: ignore[arg-type]


# Malformed data that no SDK sends.

HOSTILE: list[Callable[[Tunnel], None]] = [
    lambda end: end.on_data(None, b"\x01"),
    lambda end: end.on_data(None, b"\xa1x"),
    lambda end: end.on_data(None, b"\xc4\x05x"),
    lambda end: end.on_data(None, b"\xc1"),
    lambda end: end.on_data(None, b"\x91\xc4\x01x"),
    lambda end: end.on_data(10, b"x" * 11),
    lambda end: end.on_data(-1, b"x"),
    lambda end: end.on_data(0, b"x"),
    lambda end: end.on_data(2**40, b"x"),
    lambda end: (end.on_data(10, b"x"), end.on_data(0, b"x" * 20))[0],
]


@pytest.mark.parametrize("attack", HOSTILE)
async def test_malformed_data_aborts_only_that_tunnel(
    attack: Callable[[Tunnel], None],
) -> None:
    wire = Wire()
    one, other = wire.ends
    reading = asyncio.ensure_future(other.recv())
    await asyncio.sleep(0)
    attack(other)
    with pytest.raises(TunnelClosed):
        await within(reading)
    with pytest.raises(TunnelClosed):
        await within(one.recv())


async def test_unknown_close_value_is_a_half_close() -> None:
    one, _ = Wire().ends
    one.on_end(TunnelClose.SEND_CLOSED, "", "")
    with pytest.raises(TunnelClosed):
        await within(one.recv())
