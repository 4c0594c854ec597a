"""Start linked relays on hosts of the lab as the README does; wait for peers and members."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab import Host, Process
from support.programs import program

LINK_LIMIT = 30.0  # seconds; relays on an idle machine need one or two


def start_relays(hosts: Sequence[Host], key: Path) -> list[Process]:
    """Start a relay on each host with only -net and -rsa; wait until all are linked."""
    hosts[0].run([*program("arke"), "keygen", key])
    relays = [host.start([*program("relay"), "-net", "cluster", "-rsa", key]) for host in hosts]
    for relay in relays:
        relay.wait_for_line("relay started", LINK_LIMIT)
    for host in hosts:
        wait_for_peers(host, [other for other in hosts if other is not host])
    return relays


def status(host: Host) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(host.run([*program("arke"), "status", "--json"]).stdout)
    return document


def wait_for_peers(host: Host, peers: Sequence[Host], limit: float = LINK_LIMIT) -> None:
    """Wait until the host's relay is linked with exactly these peers."""
    wanted = sorted((peer.address, "linked") for peer in peers)
    deadline = time.monotonic() + limit
    while (links := sorted((p["address"], p["state"]) for p in status(host)["peers"])) != wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{host} has the peers {links}, not {wanted}, after {limit} s")
        time.sleep(0.1)


def wait_for_members(host: Host, count: int, limit: float = LINK_LIMIT) -> None:
    """Wait until the host's relay knows `count` members of the cluster `cluster`."""
    deadline = time.monotonic() + limit
    while (known := _members(status(host))) != count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{host} knows {known} members, not {count}, after {limit} s")
        time.sleep(0.1)


def _members(document: dict[str, Any]) -> int:
    cluster = document["clusters"].get("cluster", {"here": 0, "elsewhere": 0})
    return int(cluster["here"] + cluster["elsewhere"])
