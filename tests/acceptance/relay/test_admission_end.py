"""An admission expires unless it is renewed; then the two nodes exchange nothing."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import arke
from arke.wire.messages import PeerOp
from lab import Lab
from support.ports import free_port
from support.programs import program
from support.raw_peer import RawPeer, RawPeerLink, receive, unpack_batch
from support.relay_status import peer_states, wait_for_members, wait_for_topic
from support.relays import Relay, Relays
from support.traffic import Traffic, echo_service
from support.waiting import LIMIT, wait_until, wait_until_async

RENEWALS = 10


@pytest.fixture
def short_lived(relays: Relays) -> Iterator[RawPeer]:
    """A peer that is admitted for two seconds and does not answer on its join port."""
    made = RawPeer(relays.network, relays.key, lifetime=2)
    yield made
    made.close()


def dropped(metrics_port: int, cause: str) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=LIMIT) as page:
        for line in page.read().decode().splitlines():
            if line.startswith(f'arke_dropped_total{{cause="{cause}"}}'):
                return int(float(line.split()[1]))
    return 0


async def test_messages_under_an_expired_admission_are_dropped_and_counted(
    relays: Relays, short_lived: RawPeer
) -> None:
    metrics = free_port()
    relay = relays.start("-metrics", f"127.0.0.1:{metrics}")
    async with arke.connect(port=relay.port) as mesh, mesh.subscribe("t") as events:
        link = await short_lived.link(relay)
        relay.process.wait_for_line("peer linked", LIMIT)
        await link.send((PeerOp.PUBLISH.value, "t", b"admitted", 1, None))
        async with asyncio.timeout(LIMIT):
            assert (await anext(events)).body == b"admitted"

        await wait_until_link_expires(relay, link)
        relay.process.wait_for_line("peer lost .*admission_expired", LIMIT)
        before = dropped(metrics, "peer_not_admitted")
        for _ in range(20):
            await link.send((PeerOp.PUBLISH.value, "t", b"expired", 1, None))

        async def counted() -> bool:
            return dropped(metrics, "peer_not_admitted") >= before + 20

        await wait_until_async(counted)
        await mesh.publish("t", b"after")
        async with asyncio.timeout(LIMIT):
            assert (await anext(events)).body == b"after"


async def test_nothing_is_sent_under_an_expired_admission_until_renewed(
    relays: Relays, short_lived: RawPeer
) -> None:
    relay = relays.start()
    received: list[bytes] = []

    async def receive_event(body: bytes, link: RawPeerLink) -> None:
        async with asyncio.timeout(LIMIT):
            while body not in received:
                await link.send()
                received.extend(events(await receive(short_lived.incoming)))

    async with arke.connect(port=relay.port) as mesh:
        link = await short_lived.link(relay)
        await link.send((PeerOp.SUBSCRIBED.value, "t"))
        await wait_for_topic(mesh, "t")
        await mesh.publish("t", b"admitted")
        await receive_event(b"admitted", link)

        await wait_until_link_expires(relay, link)
        await mesh.publish("t", b"expired")

        link = await short_lived.link(relay)
        await link.send((PeerOp.SUBSCRIBED.value, "t"))
        await wait_for_topic(mesh, "t")
        await mesh.publish("t", b"admitted again")
        await receive_event(b"admitted again", link)
        assert received == [b"admitted", b"admitted again"]


async def wait_until_link_expires(relay: Relay, link: RawPeerLink) -> None:
    """Send keepalives until the relay drops the link although it is alive."""
    async with asyncio.timeout(LIMIT):
        while await peer_states(relay):
            await link.send()
            await asyncio.sleep(0.1)


def events(batch: bytes) -> list[bytes]:
    _, *messages = unpack_batch(batch)
    return [message[2] for message in messages if message[0] == PeerOp.PUBLISH]


def test_admission_without_renewal_expires_on_a_working_link(lab: Lab, tmp_path: Path) -> None:
    """The join ports become unreachable; the data ports stay reachable."""
    key = tmp_path / "id_rsa"
    one, other, _ = lab.hosts
    one.run([*program("arke"), "keygen", key])
    command = [*program("relay"), "-net", "cluster", "-rsa", key, "-cert-life", "4s"]
    nodes = [host.start(command) for host in (one, other)]
    for node in nodes:
        node.wait_for_line("peer linked", LIMIT)
    other.start([*program("arke"), "serve", "cluster", "--echo"])
    request = [*program("arke"), "request", "cluster", "x"]
    wait_until(lambda: one.run(request, check=False).stdout == "x")

    rule = ["ipproto", "tcp", "dport", "55556", "unreachable"]
    for host in (one, other):
        host.run(["ip", "rule", "add", "pref", "10", *rule])
    for node in nodes:
        node.wait_for_line("peer lost .*admission_expired", LIMIT)
    failed = one.run(request, check=False)
    assert failed.returncode != 0
    assert "has no members" in failed.stderr

    expired_at = [node.written for node in nodes]
    for host in (one, other):
        host.run(["ip", "rule", "del", "pref", "10"])
    for node, since in zip(nodes, expired_at, strict=True):
        node.wait_for_line("peer linked", LIMIT, after=since)
    assert one.run(request).stdout == "x"


async def test_admission_renewals_under_load_fail_no_request(relays: Relays) -> None:
    one = relays.start("-cert-life", "5s", "-log-level", "debug")
    other = relays.start("-cert-life", "5s", "-log-level", "debug", join=[one])

    def renewals() -> int:
        return sum(relay.process.log.count("admission renewed") for relay in (one, other))

    async with (
        echo_service("work", other.port),
        arke.connect(port=one.port) as mesh,
    ):
        await wait_for_members(mesh, "work", 1)
        async with Traffic("work", [mesh] * 8) as traffic:
            async with asyncio.timeout(4 * LIMIT):
                while renewals() < RENEWALS:
                    await traffic.wait_for_replies()
    for relay in (one, other):
        assert relay.process.log.count("peer linked") == 1
        assert "admission not renewed" not in relay.process.log
