"""`make demo`: the whole on one machine, and nothing left of it afterwards."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from lab import Process
from support.processes import start_process
from support.programs import CHECKOUT
from support.waiting import LIMIT, wait_until

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


class Demo:
    """The demo on ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.page, relay, peer, server = blocks(4)
        words = [sys.executable, CHECKOUT / "demo-httpserver" / "demo.py"]
        words += ["-listen", f"127.0.0.1:{self.page}", "-port", str(relay)]
        words += ["-peer-port", str(peer), "-backend-port", str(server)]
        self.folder = folder
        self.process: Process = start_process("demo", words, TMPDIR=str(folder))

    def wait_until_ready(self) -> None:
        line = self.process.wait_for_line(r"open http://(\S+)/hello/alice", 2 * LIMIT)
        assert line[1] == f"127.0.0.1:{self.page}"

    def node_of_page(self) -> int:
        """Return which node serves the page now, or 0 while none does."""
        with contextlib.suppress(OSError, HTTPException):
            page = HTTPConnection("127.0.0.1", self.page, timeout=LIMIT)
            page.request("GET", "/hello/alice")
            body = page.getresponse().read().decode()
            page.close()
            if match := re.search(r"127\.0\.0\.(\d)", body):
                return int(match[1])
        return 0

    def children(self) -> dict[str, int]:
        """Return the pids of what the demo has started, by the words that tell them apart."""
        pid = self.process.machine_pid
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        return {Path(f"/proc/{child}/cmdline").read_text(): int(child) for child in listed.split()}

    def child(self, *words: str) -> int | None:
        """Return the pid of the one child whose command line has all words.

        None while there is no such child: one that has just been forked has no line of its own.
        """
        found = [pid for line, pid in self.children().items() if all(w in line for w in words)]
        return found[0] if len(found) == 1 else None


def blocks(count: int) -> list[int]:
    found: set[int] = set()
    while len(found) < count:
        found.add(block())
    return list(found)


def block() -> int:
    """Find a port that is free on the demo's addresses, with those that it takes beside it.

    Below those that the system gives to any connection at any time.
    """
    while True:
        port = random.randrange(20_000, 32_000, 40)
        if all(free(host, port + more) for host in HOSTS for more in (0, 1, 10, 20)):
            return port


def free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) != 0


def has_exited(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2][1] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    made = Demo(tmp_path)
    try:
        yield made
    finally:
        if made.process.running:
            made.process.terminate()
        made.process.wait(2 * LIMIT)
        sys.stdout.write(made.process.log)
        made.process.close()


def test_both_servers_respond_and_no_process_is_left(demo: Demo) -> None:
    demo.wait_until_ready()
    page = HTTPConnection("127.0.0.1", demo.page, LIMIT)
    seen: Counter[str] = Counter()
    for _ in range(100):
        page.request("GET", "/hello/alice")
        response = page.getresponse()
        seen[response.read().decode()] += 1
        assert response.status == 200
    page.close()
    assert set(seen) == {f"hello, alice!\nhello, 127.0.0.{node}!\n" for node in (2, 3)}
    assert min(seen.values()) >= 30
    children = demo.children()
    assert len(children) == 6
    demo.process.signal(signal.SIGINT)
    assert demo.process.wait(2 * LIMIT) == 0
    assert all(has_exited(pid) for pid in children.values())
    assert list(demo.folder.iterdir()) == []
    assert "warn  drain" not in demo.process.log


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("server 3", ("httpserver", "127.0.0.3")),
        ("relay 2", ("arke_relay", "127.0.0.2")),
        ("proxy", ("arke_proxy",)),
    ],
)
def test_killed_program_is_restarted(demo: Demo, name: str, words: tuple[str, ...]) -> None:
    demo.wait_until_ready()
    pid = demo.child(*words)
    assert pid
    os.kill(pid, signal.SIGKILL)
    line = f"^demo: {name} was killed by SIGKILL; restarting it$"
    demo.process.wait_for_line(line, LIMIT)
    wait_until(lambda: len(demo.children()) == 6 and demo.child(*words) not in {None, pid})
    wait_until(lambda: {2, 3} <= {demo.node_of_page() for _ in range(10)})
    demo.process.signal(signal.SIGINT)
    assert demo.process.wait(2 * LIMIT) == 0
    assert list(demo.folder.iterdir()) == []


def test_nothing_outlives_a_demo_that_is_killed(demo: Demo) -> None:
    demo.wait_until_ready()
    children = demo.children()
    demo.process.kill()
    demo.process.wait(LIMIT)
    wait_until(lambda: all(has_exited(pid) for pid in children.values()))
    assert list(demo.folder.iterdir()) == []


def test_port_in_use_is_a_one_line_error() -> None:
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        page, relay, peer = blocks(3)
        words = [sys.executable, CHECKOUT / "demo-httpserver" / "demo.py"]
        words += ["-listen", f"127.0.0.1:{page}", "-port", str(relay), "-peer-port", str(peer)]
        process = start_process("demo", [*words, "-backend-port", str(port)])
        assert process.wait(LIMIT) == 2
    assert process.log == (
        f"demo: 127.0.0.2:{port}: Address already in use; "
        "stop the program that uses it, or choose with make demo DEMO='-backend-port 54575'\n"
    )
    process.close()


def test_invalid_port_is_a_one_line_error() -> None:
    words = [sys.executable, CHECKOUT / "demo-httpserver" / "demo.py"]
    process = start_process("demo", [*words, "-port", "65530"])
    assert process.wait(LIMIT) == 2
    assert process.log == (
        "demo: 127.0.0.1:65540: a port must be at most 65535; "
        "choose with make demo DEMO='-port 54555'\n"
    )
    process.close()
