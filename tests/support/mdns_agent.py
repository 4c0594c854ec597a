"""A process with nothing but the relay's mDNS in it. JSON leaves on stdout, a line at a time.

`python mdns_agent.py BIND[,BIND…] NODE PORT SECRET [PAUSE]`, BIND as for the relay; it searches by
itself after every PAUSE seconds. Words come on stdin if that is a pipe; SIGUSR1 is `search`,
SIGUSR2 is `known`, SIGTERM is `stop`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import stat
import sys
from dataclasses import asdict

import uvloop

from arke.program.logging import configure
from arke_relay.discovery import mdns as module
from arke_relay.discovery.addresses import Address, choose, machine_adapters
from arke_relay.discovery.hints import Hint
from arke_relay.discovery.mdns import Mdns


def tell(kind: str, what: object) -> None:
    sys.stdout.write(f"{json.dumps({kind: what})}\n")
    sys.stdout.flush()


def tag(secret: str, node: str) -> bytes:
    return hashlib.sha256(f"{secret} {node}".encode()).digest()[:16]


def bound(specs: str) -> list[Address]:
    return [each for spec in specs.split(",") for each in choose(spec, machine_adapters())]


async def main(specs: str, node: str, port: str, secret: str, pause: str | None = None) -> None:
    if pause is not None:
        module._PAUSES = (float(pause),)
    loop = asyncio.get_running_loop()
    loop.slow_callback_duration = 60.0  # a busy machine is nothing to complain of
    words: asyncio.Queue[list[str]] = asyncio.Queue()
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        loop.add_reader(0, lambda: words.put_nowait(sys.stdin.readline().split()))
    loop.add_signal_handler(signal.SIGUSR1, words.put_nowait, ["search"])
    loop.add_signal_handler(signal.SIGUSR2, words.put_nowait, ["known"])
    loop.add_signal_handler(signal.SIGTERM, words.put_nowait, ["stop"])

    def on_hint(hint: Hint) -> None:
        tell("hint", asdict(hint))

    def match(theirs: bytes, node_id: str) -> int | None:
        return 0 if theirs == tag(secret, node_id) else None

    mdns = Mdns(
        bound(specs), node, int(port), tag(secret, node), match, on_hint, configure("arke_relay")
    )
    await mdns.start()
    tell("ready", node)
    while await obey(mdns, await words.get()):
        pass


async def obey(mdns: Mdns, words: list[str]) -> bool:
    """Return whether to go on."""
    match words:
        case ["known"]:
            tell("known", [asdict(hint) for hint in mdns.known()])
        case ["counts"]:
            tell("counts", dict(mdns.counts))
        case ["search"]:
            await mdns.search()
            tell("searched", True)
        case ["use", specs]:
            await mdns.update(bound(specs))
            tell("using", specs)
        case _:
            await mdns.stop()
            tell("stopped", True)
            return False
    return True


uvloop.run(main(*sys.argv[1:]))
