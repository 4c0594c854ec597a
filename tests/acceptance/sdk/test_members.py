"""Members by id: requests to one, requests to all, and watching a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing

import pytest

import arke
from support.relay_status import wait_for_members
from support.relays import Relay, Relays
from support.waiting import LIMIT


def named_service(name: str, port: int) -> arke.Service:
    service = arke.Service("work", port=port, metadata={"name": name})

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        if request.body == name.encode():
            raise ValueError("not me")
        return name.encode()

    return service


async def next_change(changes: AsyncIterator[arke.Change]) -> tuple[bool, str]:
    async with asyncio.timeout(LIMIT):
        joined, member = await anext(changes)
    return joined, member.metadata["name"]


async def test_request_to_one_member(nodes: tuple[Relay, Relay]) -> None:
    async with AsyncExitStack() as stack:
        for number, node in enumerate((*nodes, *nodes)):
            await stack.enter_async_context(named_service(f"{number}", node.port))
        mesh = await stack.enter_async_context(arke.connect(port=nodes[0].port))
        await wait_for_members(mesh, "work", 4)
        members = await mesh.members("work")
        assert sorted(member.metadata["name"] for member in members) == ["0", "1", "2", "3"]
        addresses = {member.node: member.address for member in members}
        assert addresses[mesh.node.id] == mesh.node.address
        assert set(addresses.values()) == {node.address for node in nodes}
        for member in members:
            for _ in range(5):
                reply = await mesh.request("work", b"who", member=member.id, timeout=LIMIT)
                assert reply.decode() == member.metadata["name"]


async def test_request_to_a_departed_member_raises_at_once(
    nodes: tuple[Relay, Relay],
) -> None:
    async with arke.connect(port=nodes[0].port) as mesh, named_service("stays", nodes[0].port):
        async with named_service("leaves", nodes[1].port):
            await wait_for_members(mesh, "work", 2)
            (leaving,) = [
                each for each in await mesh.members("work") if each.metadata["name"] == "leaves"
            ]
        await wait_for_members(mesh, "work", 1)
        with pytest.raises(arke.NoSuchMember):
            await mesh.request("work", b"", member=leaving.id, timeout=LIMIT)
        with pytest.raises(ValueError, match="member"):
            await mesh.request("work", b"", member="", timeout=LIMIT)


async def test_request_all_returns_an_answer_per_member(nodes: tuple[Relay, Relay]) -> None:
    async with AsyncExitStack() as stack:
        for number in range(6):
            await stack.enter_async_context(named_service(f"{number}", nodes[number % 2].port))
        mesh = await stack.enter_async_context(arke.connect(port=nodes[0].port))
        await wait_for_members(mesh, "work", 6)
        answers = await mesh.request_all("work", b"3", timeout=LIMIT)
        assert len(answers) == 6
        for member, body, error in answers:
            if member.metadata["name"] == "3":
                assert isinstance(error, arke.RemoteError)
                assert body == b""
            else:
                assert error is None
                assert body.decode() == member.metadata["name"]
        with pytest.raises(arke.NoSuchCluster):
            await mesh.request_all("unknown", b"", timeout=LIMIT)


async def test_request_all_with_a_silent_member(relays: Relays) -> None:
    relay = relays.start()
    silent = arke.Service("work", port=relay.port, metadata={"name": "silent"}, drain=0.0)

    @silent.on_request
    async def answer(_: arke.Request) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async with silent, named_service("quick", relay.port), arke.connect(port=relay.port) as mesh:
        assert len(await mesh.members("work")) == 2, "the relay's directory is complete"
        answers = await mesh.request_all("work", b"", timeout=0.5)
        by_name = {answer.member.metadata["name"]: answer for answer in answers}
        assert by_name["quick"].body == b"quick"
        assert isinstance(by_name["silent"].error, arke.RequestTimeout)


async def test_watch_reports_members_joins_and_leaves(
    nodes: tuple[Relay, Relay],
) -> None:
    async with arke.connect(port=nodes[0].port) as mesh:
        async with named_service("first", nodes[1].port):
            await wait_for_members(mesh, "work", 1)
            async with aclosing(mesh.watch("work")) as changes:
                assert await next_change(changes) == (True, "first")
                async with named_service("second", nodes[0].port):
                    assert await next_change(changes) == (True, "second")
                assert await next_change(changes) == (False, "second")
                async with aclosing(mesh.watch("work")) as others:
                    assert await next_change(others) == (True, "first")
                    late = named_service("third", nodes[1].port)
                    async with late:
                        assert (
                            await next_change(changes)
                            == await next_change(others)
                            == (True, "third")
                        )
        await wait_for_members(mesh, "work", 0)


async def test_watch_reports_the_members_of_a_lost_node(relays: Relays) -> None:
    one, other = relays.start_pair()
    async with (
        named_service("here", one.port),
        arke.connect(port=one.port) as mesh,
        aclosing(mesh.watch("work")) as changes,
    ):
        assert await next_change(changes) == (True, "here")
        service = named_service("there", other.port)
        await service.__aenter__()
        assert await next_change(changes) == (True, "there")
        other.process.kill()
        assert await next_change(changes) == (False, "there")
        await service.__aexit__(None, None, None)


async def test_watch_continues_after_a_relay_restart(relays: Relays) -> None:
    """A member that registers again is not reported; one that does not has left."""
    one, other = relays.start_pair()
    stays = named_service("stays", other.port)
    here = named_service("here", one.port)
    async with (
        stays,
        arke.connect(port=one.port) as mesh,
        aclosing(mesh.watch("work")) as changes,
    ):
        assert await next_change(changes) == (True, "stays")
        await here.__aenter__()
        assert await next_change(changes) == (True, "here")
        one.process.kill()
        await here.__aexit__(None, None, None)
        relays.start(port=one.port, join=[other])
        assert await next_change(changes) == (False, "here")
        async with named_service("new", one.port):
            assert await next_change(changes) == (True, "new")


async def test_slow_watcher_misses_only_members_that_left_again(relays: Relays) -> None:
    relay = relays.start()
    async with arke.connect(port=relay.port) as mesh, aclosing(mesh.watch("work")) as changes:
        async with named_service("stays", relay.port):
            assert await next_change(changes) == (True, "stays")
            for number in range(20):
                async with named_service(f"brief {number}", relay.port):
                    await wait_for_members(mesh, "work", 2)
            await wait_for_members(mesh, "work", 1)
        await wait_for_members(mesh, "work", 0)
        assert await next_change(changes) == (False, "stays")


async def test_closing_the_mesh_ends_watches(relays: Relays) -> None:
    relay = relays.start()
    async with arke.connect(port=relay.port) as mesh:
        changes = mesh.watch("work")
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
    with pytest.raises(arke.MeshClosed):
        await waiting


@pytest.mark.parametrize("metadata", [{"a": "x" * 5000}, {"a": 1}, {f"{n}": "" for n in range(70)}])
def test_invalid_metadata_raises(metadata: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="metadata"):
        arke.Service("work", metadata=metadata)
