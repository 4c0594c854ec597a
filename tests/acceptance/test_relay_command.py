"""The `relay` command while it runs: where its flags come from, its socket, its log, its end."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import signal
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from raw_program import raw_program
from traffic import echo, until_peers

import arke
from lab import LabError, Process
from programs import program
from relays import LIMIT, Relay, Relays, free_port, start

NOBODY = 65534


@pytest.fixture
def run() -> Iterator[Callable[..., Process]]:
    """Start relays by their bare command."""
    running: list[Process] = []

    def command(*flags: str | Path, **environ: str) -> Process:
        running.append(start("relay", [*program("relay"), *flags], **environ))
        return running[-1]

    yield command
    for process in running:
        if process.running:
            process.terminate()
        process.wait(LIMIT)
        print(process.tail())  # noqa: T201 — shown for a test that failed
        process.close()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user may look into."""
    folder = Path(tempfile.mkdtemp(prefix="arke-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def test_flags_come_from_the_environment_as_well(
    relays: Relays, run: Callable[..., Process]
) -> None:
    seed = relays.start()
    port = free_port()
    process = run(
        *("-bind", "127.87.87.87"),
        ARKE_NET=relays.network,
        ARKE_RSA=f"{relays.new_key()},{relays.key}",
        ARKE_PORT=str(port),
        ARKE_JOIN=seed.join,
        ARKE_MDNS="off",
        ARKE_BIND="the line wins",
    )
    relay = Relay(process, port, "127.87.87.87", 55556)
    process.wait_for_line("relay started", LIMIT)
    async with arke.connect(port=port) as mesh:
        assert mesh.node.network == relays.network
    await until_peers(relay, [])
