"""`arke tunnel`, `arke serve --echo` and `arke bench tunnel`, in a shell."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.processes import start_process
from support.programs import program
from support.relays import Relay
from support.waiting import LIMIT


@pytest.fixture(scope="module")
def relay(module_relay: Relay) -> Relay:
    return module_relay


@contextmanager
def echo(relay: Relay) -> Iterator[None]:
    started = relay.process.written
    service = start_process(
        "echo", [*program("arke"), "serve", "echo", "--echo", "-port", str(relay.port)]
    )
    try:
        relay.process.wait_for_line("program registered .*cluster=echo", LIMIT, after=started)
        yield
    finally:
        service.terminate()
        service.wait(LIMIT)
        service.close()


def tunnel(relay: Relay, *words: str) -> list[str]:
    return [*program("arke"), "tunnel", *words, "-port", str(relay.port)]


def test_tunnel_echoes_stdin(relay: Relay) -> None:
    data = os.urandom(3_000_000)
    with echo(relay):
        done = subprocess.run(
            tunnel(relay, "echo"), input=data, capture_output=True, timeout=LIMIT, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == data


def test_tunnel_streams_both_ways(relay: Relay) -> None:
    with (
        echo(relay),
        subprocess.Popen(
            tunnel(relay, "echo"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process,
    ):
        assert process.stdin
        assert process.stdout
        for line in (b"one\n", b"two\n"):
            os.write(process.stdin.fileno(), line)
            assert process.stdout.readline() == line
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(LIMIT) == 0


def test_tunnel_reads_files_and_empty_stdin(relay: Relay) -> None:
    with echo(relay), Path(__file__).open("rb") as file:
        done = subprocess.run(
            tunnel(relay, "echo"), stdin=file, capture_output=True, timeout=LIMIT, check=False
        )
        file.seek(0)
        assert done.stdout == file.read()
        done = subprocess.run(
            tunnel(relay, "echo"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_tunnel_to_a_member_without_handler_prints_one_line(relay: Relay) -> None:
    done = subprocess.run(
        tunnel(relay, "unknown"), input=b"", capture_output=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("arke: cluster 'unknown' has no members")


@pytest.mark.parametrize("size", [64, 65536])
def test_bench_tunnel_counts_received_messages(relay: Relay, size: int) -> None:
    done = subprocess.run(
        [
            *program("arke"),
            # Long enough for two reports, each after 512 messages, on a busy machine.
            *("bench", "tunnel", "--size", str(size), "--seconds", "2", "--json"),
            *("-port", str(relay.port)),
        ],
        capture_output=True,
        timeout=LIMIT,
        check=True,
    )
    figures = json.loads(done.stdout)
    assert figures["pattern"] == "tunnel"
    assert (figures["errors"], figures["drops"]) == (0, 0)
    assert figures["received"] > 0
    assert figures["mb_s"] == pytest.approx(figures["rate"] * size / 1e6, abs=0.1)
