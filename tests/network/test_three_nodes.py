from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from lab import Lab
from support.lab_relays import start_relays, status, wait_for_members, wait_for_peers
from support.programs import program

CLIENTS = 16
LIMIT = 30.0  # seconds; an upper limit: every wait ends as soon as its event happens
ACTORS = Path(__file__).with_name("actors")

# The maximum response time in seconds when a cable is pulled: a peer is considered dead after two
# seconds without keepalives, and one retry follows. The rest is margin for a busy machine.
ONE_RETRY = 8.0


def test_relays_discover_each_other_on_the_host_only_interface(lab: Lab, tmp_path: Path) -> None:
    start_relays(lab.hosts, tmp_path / "id_rsa")
    documents = [status(host) for host in lab.hosts]
    assert [document["node"]["address"] for document in documents] == [
        host.address for host in lab.hosts
    ]
    identities = {
        document["node"]["id"]: host for document, host in zip(documents, lab.hosts, strict=True)
    }
    assert len(identities) == 3
    for host, document in zip(lab.hosts, documents, strict=True):
        peers = {peer["id"]: peer["address"] for peer in document["peers"]}
        assert peers == {
            node: other.address for node, other in identities.items() if other is not host
        }


@pytest.mark.parametrize("lab", [4], indirect=True)
def test_http_requests_survive_a_pulled_cable(lab: Lab, tmp_path: Path) -> None:
    *nodes, outside = lab.hosts
    first, second, third = nodes
    start_relays(nodes, tmp_path / "id_rsa")
    servers = [
        host.start([sys.executable, ACTORS / "working_httpserver.py"]) for host in (second, third)
    ]
    wait_for_members(first, 2)
    first.start([*program("proxy"), "-cluster", "cluster"])
    outside.run(["sh", "-c", 'until "$@"; do sleep 0.1; done', "sh", *connect(first.address, 8080)])

    url = f"http://{first.address}:8080/hello"
    words = [sys.executable, f"{ACTORS}/http_clients.py", str(CLIENTS), url, str(ONE_RETRY)]
    clients = outside.start(words)
    for host in second, third:
        clients.wait_for_line(f"^{host.address} ", LIMIT)

    servers[1].wait_for_line("^page ", LIMIT, after=servers[1].written)
    lab.cut(third)
    cut = clients.written
    for client in range(CLIENTS):
        clients.wait_for_line(f"^{second.address} client{client}-", LIMIT, after=cut)
    wait_for_peers(first, [second])

    lab.heal(third)
    healed = clients.written
    clients.wait_for_line(f"^{third.address} ", LIMIT, after=healed)
    clients.terminate()
    assert clients.wait(LIMIT) == 0
    assert "wrong" not in clients.log


def connect(address: str, port: int) -> list[str]:
    code = f"import socket; socket.create_connection(({address!r}, {port}), 1).close()"
    return [sys.executable, "-c", code]


def test_traffic_between_nodes_is_encrypted(lab: Lab, tmp_path: Path) -> None:
    start_relays(lab.hosts, tmp_path / "id_rsa")
    caller, callee = lab.hosts[:2]
    payload = random.Random(56).randbytes(20_000).hex()
    callee.start([*program("arke"), "serve", "cluster", "--echo"])
    subscriber = callee.start([*program("arke"), "subscribe", "topic"])
    wait_for_members(caller, 1)
    with caller.capture() as capture:
        reply = caller.run([*program("arke"), "request", "cluster", "-"], input=payload)
        caller.run([*program("arke"), "publish", "topic", "-"], input=payload)
        subscriber.wait_for_line(payload[-50:], LIMIT)
    assert reply.stdout.strip() == payload
    assert capture.lost == 0
    # Request, reply and event each carried the payload over this interface.
    assert sum(map(len, capture.frames)) > 3 * len(payload)
    assert not capture.contains_run(payload.encode())
