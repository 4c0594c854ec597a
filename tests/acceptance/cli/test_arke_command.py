"""The `arke` command in a shell."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import select
import shlex
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import arke
from support.programs import program
from support.relays import Relay
from support.waiting import LIMIT


@pytest.fixture(scope="module")
def relay(module_relay: Relay) -> Relay:
    return module_relay


def run(
    port: int, command: str, *argv: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        _words(port, command, *argv),
        input=stdin,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )


@contextmanager
def started(port: int, command: str, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        # A shell that runs the tests in the background makes them ignore SIGINT.
        ["env", "--default-signal=INT", *_words(port, command, *argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _words(port: int, command: str, *argv: str) -> list[str]:
    words = command.split()
    return [*program("arke"), *words, "--port", str(port), *argv]


def error_line(stderr: bytes) -> str:
    text = stderr.decode()
    assert text.startswith("arke: ")
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return text.removeprefix("arke: ").strip()


async def wait_for(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(LIMIT):
        while not await true():
            await asyncio.sleep(0.02)


async def wait_until_listed(relay: Relay, kind: str, name: str) -> None:
    """Wait until the relay lists the cluster or the topic."""
    async with arke.connect(port=relay.port) as mesh:

        async def listed() -> bool:
            return name in (await mesh.status())[kind]

        await wait_for(listed)


async def next_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout
    async with asyncio.timeout(LIMIT):
        return await asyncio.to_thread(process.stdout.readline)


def receivers(relay: Relay) -> list[int]:
    """Return the process ids of the benchmark's receivers at this relay."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it exited meanwhile
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"arke.cli.bench.receiver" in words and str(relay.port).encode() in words:
                found.append(int(entry.name))
    return found


# arke status.


def test_status_prints_tables_or_json(relay: Relay) -> None:
    document = json.loads(run(relay.port, "status", "--json").stdout)
    page = run(relay.port, "status").stdout.decode()
    assert document["node"]["address"] == relay.address
    assert f"node      {document['node']['id']}\n" in page
    assert f"address   {relay.address}\n" in page
    assert "\n\nPEER  ADDRESS  STATE  HEARD  MEMBERS\nnone\n\n" in page


async def test_status_lists_clusters(relay: Relay) -> None:
    with started(relay.port, "serve listed --echo"):
        await wait_until_listed(relay, "clusters", "listed")
        page = run(relay.port, "status").stdout.decode()
    assert re.search(r"\nlisted +1 +0 +0\.0 +0\n", page)


# arke request and arke serve.


async def test_request_prints_the_reply_unchanged(relay: Relay) -> None:
    with started(relay.port, "serve upper", "--exec", "tr a-z A-Z"):
        await wait_until_listed(relay, "clusters", "upper")
        done = run(relay.port, "request upper", "hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"HELLO", b"")


async def test_body_from_stdin_may_be_any_bytes(relay: Relay) -> None:
    body = bytes(range(256)) * 1000
    with started(relay.port, "serve echo --echo"):
        await wait_until_listed(relay, "clusters", "echo")
        done = run(relay.port, "request echo -", stdin=body)
    assert (done.returncode, done.stdout) == (0, body)


def test_request_to_an_empty_cluster_prints_one_line(relay: Relay) -> None:
    done = run(relay.port, "request empty x")
    assert (done.returncode, done.stdout) == (1, b"")
    line = error_line(done.stderr)
    assert "'empty'" in line
    assert "`arke status`" in line


async def test_failing_command_raises_at_the_caller_with_status_and_stderr(
    relay: Relay,
) -> None:
    with started(relay.port, "serve broken", "--exec", "echo no paper >&2; exit 3"):
        await wait_until_listed(relay, "clusters", "broken")
        done = run(relay.port, "request broken x")
        async with arke.connect(port=relay.port) as mesh:
            with pytest.raises(arke.RemoteError) as caught:
                await mesh.request("broken", b"x")
    assert (caught.value.type, caught.value.text) == ("CommandError", "exit status 3: no paper")
    assert (done.returncode, done.stdout) == (1, b"")
    assert (
        error_line(done.stderr)
        == "the handler of the member raised CommandError: exit status 3: no paper"
    )


async def test_request_timeout_prints_one_line(relay: Relay) -> None:
    with started(relay.port, "serve slow", "--exec", "sleep 60"):
        await wait_until_listed(relay, "clusters", "slow")
        done = run(relay.port, "request slow x --timeout 300ms")
    assert done.returncode == 1
    assert error_line(done.stderr).endswith("increase -timeout")


def test_missing_relay_prints_one_line_at_once() -> None:
    for command in ("status", "request c b", "publish t b", "subscribe t", "bench request"):
        done = run(1, command)
        assert (done.returncode, done.stdout) == (1, b"")
        assert "start one with `relay " in error_line(done.stderr)


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ([], "-exec COMMAND, -echo or -http ADDRESS is required"),
        (["--echo", "--exec", "cat"], "-exec and -echo exclude each other"),
        (["--http", "web"], "-http must be IP:PORT, [IPv6]:PORT or :PORT (got web)"),
    ],
)
def test_serve_requires_one_handler(relay: Relay, flags: list[str], error: str) -> None:
    done = run(relay.port, "serve c", *flags)
    assert done.returncode == 2
    assert error_line(done.stderr) == error


def test_name_over_the_limit_prints_one_line(relay: Relay) -> None:
    done = run(relay.port, "request", "é" * 128, "x")
    assert done.returncode == 2
    assert "CLUSTER must be 1 to 255 bytes of UTF-8 text (got " in error_line(done.stderr)


@pytest.mark.parametrize(
    ("line", "hint"), [("request c - <&-", "</dev/null"), ("status >&-", ">/dev/null")]
)
def test_closed_stdin_or_stdout_prints_one_line(line: str, hint: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"exec {shlex.join(map(str, program('arke')))} {line}"],
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert error_line(done.stderr).endswith(hint)


def test_body_that_looks_like_a_flag_prints_a_hint(relay: Relay) -> None:
    done = run(relay.port, "request empty", "-x")
    assert done.returncode == 2
    assert "; write -- before a value that begins with -; see" in error_line(done.stderr)
    done = run(relay.port, "request empty", "--", "-x")
    assert "'empty'" in error_line(done.stderr)
    assert "--" not in error_line(run(relay.port, "request empty").stderr)


async def test_serve_drains_on_sigterm(relay: Relay, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with started(relay.port, "serve gate", "--exec", f"cat {gate}") as serving:
        await wait_until_listed(relay, "clusters", "gate")
        async with arke.connect(port=relay.port) as mesh:
            asking = asyncio.create_task(mesh.request("gate", b"", timeout=LIMIT))
            writing = await opened_by_a_reader(gate)
            serving.send_signal(signal.SIGTERM)

            async def left() -> bool:
                return "gate" not in (await mesh.status())["clusters"]

            await wait_for(left)
            os.write(writing, b"finished")
            os.close(writing)
            assert await asking == b"finished"
        assert serving.communicate(timeout=LIMIT) == (b"", b"")
        assert serving.returncode == 0


async def opened_by_a_reader(fifo: Path) -> int:
    """Return a descriptor for writing once a reader has opened the FIFO."""
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
            await asyncio.sleep(0.02)


# arke broadcast, publish and subscribe.


async def test_broadcast_command_reaches_members(relay: Relay) -> None:
    received: asyncio.Queue[bytes] = asyncio.Queue()
    service = arke.Service("town", port=relay.port)

    @service.on_broadcast
    async def on_broadcast(broadcast: arke.Broadcast) -> None:
        received.put_nowait(broadcast.body)

    async with service, asyncio.timeout(LIMIT):
        done = await asyncio.to_thread(run, relay.port, "broadcast town -", stdin=b"fire")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert await received.get() == b"fire"


async def test_subscribe_prints_one_line_per_event_until_ctrl_c(relay: Relay) -> None:
    with started(relay.port, "subscribe news") as listening:
        await wait_until_listed(relay, "topics", "news")
        for body in ("one", "two"):
            assert run(relay.port, "publish news", body).returncode == 0
        assert [await next_line(listening) for _ in range(2)] == [b"one\n", b"two\n"]
        listening.send_signal(signal.SIGINT)
        assert listening.communicate(timeout=LIMIT) == (b"", b"")
        assert listening.returncode == 130


async def test_closed_pipe_ends_subscribe_quietly(relay: Relay) -> None:
    with started(relay.port, "subscribe left") as listening:
        await wait_until_listed(relay, "topics", "left")
        assert listening.stdout
        assert listening.stderr
        listening.stdout.close()
        run(relay.port, "publish left", "anyone?")
        assert listening.wait(LIMIT) == 130
        assert listening.stderr.read() == b""


async def test_paused_reader_gets_everything(relay: Relay) -> None:
    body = os.urandom(1024 * 1024).replace(b"\n", b"-")
    with started(relay.port, "subscribe slow") as listening:
        await wait_until_listed(relay, "topics", "slow")
        run(relay.port, "publish slow -", stdin=body)
        assert await next_line(listening) == body + b"\n"


async def test_ctrl_c_ends_subscribe_with_a_paused_reader(relay: Relay) -> None:
    with started(relay.port, "subscribe stuck") as listening:
        await wait_until_listed(relay, "topics", "stuck")
        run(relay.port, "publish stuck -", stdin=b"started\n" + bytes(1024 * 1024))
        assert await next_line(listening) == b"started\n"  # the rest is more than a pipe holds
        listening.send_signal(signal.SIGINT)
        assert listening.wait(LIMIT) == 130


# arke bench.


@pytest.mark.parametrize(("pattern", "members"), [("request", 1), ("publish", 2), ("broadcast", 4)])
def test_bench_measures_and_leaves_no_processes(relay: Relay, pattern: str, members: int) -> None:
    done = run(
        relay.port,
        f"bench {pattern} --seconds 300ms --inflight 8 --json",
        "--members",
        str(members),
    )
    assert (done.returncode, done.stderr) == (0, b"")
    figures = json.loads(done.stdout)
    assert (figures["pattern"], figures["errors"], figures["drops"]) == (pattern, 0, 0)
    assert figures["received"] > 0
    assert figures["rate"] > 0
    assert 0 < figures["p50_us"] <= figures["p99_us"]
    assert receivers(relay) == []


def test_bench_prints_one_line(relay: Relay) -> None:
    done = run(relay.port, "bench request --seconds 100ms --size 16")
    assert done.stdout.startswith(b"request  ")
    assert done.stdout.count(b"\n") == 1


def test_bench_explains_why_receivers_do_not_start(relay: Relay) -> None:
    done = run(relay.port, "bench request --member-port 1")
    assert done.returncode == 1
    assert error_line(done.stderr).startswith("a receiver did not start: no relay at 127.0.0.1:1")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_receivers_exit_with_the_benchmark(relay: Relay, number: signal.Signals) -> None:
    with started(relay.port, "bench request --seconds 60 --members 2") as measuring:
        await both_serve(relay)
        found = [os.pidfd_open(process) for process in receivers(relay)]
        assert len(found) == 2
        measuring.send_signal(number)
        assert measuring.wait(LIMIT) == (130 if number == signal.SIGINT else -number)
    for descriptor in found:
        assert select.select([descriptor], [], [], LIMIT)[0]
        os.close(descriptor)


@pytest.mark.parametrize("pattern", ["request", "broadcast"])
async def test_dead_receiver_makes_the_benchmark_fail(relay: Relay, pattern: str) -> None:
    with started(relay.port, f"bench {pattern} --seconds 2 --members 2") as measuring:
        await both_serve(relay)
        victim, _ = receivers(relay)
        os.kill(victim, signal.SIGKILL)
        assert measuring.wait(LIMIT) == 1


async def both_serve(relay: Relay) -> None:
    async with arke.connect(port=relay.port) as mesh:

        async def listed() -> bool:
            clusters = (await mesh.status())["clusters"].items()
            return any(name.startswith("bench-") and known["here"] == 2 for name, known in clusters)

        await wait_for(listed)
