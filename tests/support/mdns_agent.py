"""Run only the relay's mDNS discovery in a process; write each result to stdout as a JSON line.

`python mdns_agent.py BIND[,BIND…] NODE PORT SECRET [PAUSE]`: BIND is as for the relay. The agent
sends a query every PAUSE seconds. It reads commands from stdin if stdin is a pipe. SIGUSR1 sends
the command `search`, SIGUSR2 `known` and SIGTERM `stop`.
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


def write_result(kind: str, value: object) -> None:
    sys.stdout.write(f"{json.dumps({kind: value})}\n")
    sys.stdout.flush()


def node_tag(secret: str, node: str) -> bytes:
    return hashlib.sha256(f"{secret} {node}".encode()).digest()[:16]


def addresses_to_bind(specs: str) -> list[Address]:
    return [each for spec in specs.split(",") for each in choose(spec, machine_adapters())]


async def main(specs: str, node: str, port: str, secret: str, pause: str | None = None) -> None:
    if pause is not None:
        module._PAUSES = (float(pause),)
    loop = asyncio.get_running_loop()
    loop.slow_callback_duration = 60.0  # do not warn about slow callbacks on a busy machine
    commands: asyncio.Queue[list[str]] = asyncio.Queue()
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        loop.add_reader(0, lambda: commands.put_nowait(sys.stdin.readline().split()))
    loop.add_signal_handler(signal.SIGUSR1, commands.put_nowait, ["search"])
    loop.add_signal_handler(signal.SIGUSR2, commands.put_nowait, ["known"])
    loop.add_signal_handler(signal.SIGTERM, commands.put_nowait, ["stop"])

    def on_hint(hint: Hint) -> None:
        write_result("hint", asdict(hint))

    def match(tag: bytes, node_id: str) -> int | None:
        return 0 if tag == node_tag(secret, node_id) else None

    mdns = Mdns(
        addresses_to_bind(specs),
        node,
        int(port),
        node_tag(secret, node),
        match,
        on_hint,
        configure("arke_relay"),
    )
    await mdns.start()
    write_result("ready", node)
    while await run_command(mdns, await commands.get()):
        pass


async def run_command(mdns: Mdns, words: list[str]) -> bool:
    """Run a command. Return False after `stop`."""
    match words:
        case ["known"]:
            write_result("known", [asdict(hint) for hint in mdns.known()])
        case ["counts"]:
            write_result("counts", dict(mdns.counts))
        case ["search"]:
            await mdns.search()
            write_result("searched", True)
        case ["use", specs]:
            await mdns.update(addresses_to_bind(specs))
            write_result("using", specs)
        case _:
            await mdns.stop()
            write_result("stopped", True)
            return False
    return True


uvloop.run(main(*sys.argv[1:]))
