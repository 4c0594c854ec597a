"""An Iris program as one puts load on a running relay: the twin of `arke bench`.

`python -m benchmarks.iris_side request|attach --port N …` prints the same JSON.
"""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from arke.cli.bench.result import Result, percentile
from arke.program import flags
from benchmarks.iris_wire import (
    LIMIT,
    READ,
    REPLY,
    REQUEST,
    IrisError,
    attach,
    binary,
    leave,
    varint,
)
from benchmarks.processes import module

CLUSTER = "bench"
WARM_UP = 0.5
TIMEOUT_MS = 5000
PATTERNS = {
    "request": "one member of a cluster answers; the rate counts replies",
    "attach": "attach, register and leave, one after another",
}


@dataclass(frozen=True, slots=True)
class Load:
    """What to put on the relay."""

    port: int = flags.flag("N", parse=flags.port, default=55555, help="port on 127.0.0.1")
    inflight: int = flags.flag("N", parse=flags.count, default=64, help="requests under way")
    size: int = flags.flag("OCTETS", parse=flags.count, default=128, help="of each body")
    seconds: float = flags.flag("TIME", parse=flags.seconds, default=3.0, help="to measure")


def requests(load: Load) -> Result:
    """Keep `inflight` requests under way, first to warm up and then to measure."""
    with member(load.port):
        caller = Caller(load)
        caller.ask_for(WARM_UP)
        began = time.perf_counter()
        latencies = caller.ask_for(load.seconds)
        elapsed = time.perf_counter() - began
        leave(caller.sock)
    return result("request", load.size, latencies, elapsed)


def attachments(load: Load) -> Result:
    """Attach, register and leave again and again."""

    def come_and_go(seconds: float) -> array[int]:
        latencies = array("q")
        clock = time.perf_counter_ns
        began = clock()
        until = began + int(seconds * 1e9)
        while began < until:
            leave(attach(load.port, CLUSTER))
            ended = clock()
            latencies.append(ended - began)
            began = ended
        return latencies

    come_and_go(WARM_UP)
    began = time.perf_counter()
    latencies = come_and_go(load.seconds)
    return result("attach", 0, latencies, time.perf_counter() - began)


def result(pattern: str, size: int, latencies: array[int], elapsed: float) -> Result:
    return Result(
        pattern=pattern,
        size=size,
        rate=len(latencies) / elapsed,
        p50_us=percentile(latencies, 50),
        p99_us=percentile(latencies, 99),
        received=len(latencies),
    )


class Caller:
    """Asks again as soon as it has a reply, in as many slots as there are to be in flight.

    A slot is a request's number: of one octet, so that all replies are of one length.
    """

    def __init__(self, load: Load) -> None:
        if load.inflight > 128:
            raise IrisError("at most 128 in flight")
        self.sock: socket.socket = attach(load.port)
        body = binary(secrets.token_bytes(load.size))
        self._inflight = load.inflight
        self._answer = b"\x00\x01" + body
        question = binary(CLUSTER.encode()) + body + varint(TIMEOUT_MS)
        self._questions = [bytes([REQUEST, slot]) + question for slot in range(load.inflight)]

    def ask_for(self, seconds: float) -> array[int]:
        """Return the latencies of replies, in nanoseconds. Raises IrisError."""
        clock, receive, send = time.perf_counter_ns, self.sock.recv, self.sock.sendall
        questions, answer = self._questions, self._answer
        length = 2 + len(answer)
        latencies = array("q")
        began = [clock()] * self._inflight
        until = began[0] + int(seconds * 1e9)
        send(b"".join(questions))
        under_way, held = self._inflight, b""
        while under_way:
            data = receive(READ)
            if not data:
                raise IrisError("the relay ended the connection")
            held += data
            now = clock()
            again = []
            whole = len(held) - len(held) % length
            for at in range(0, whole, length):
                if held[at] != REPLY or held[at + 2 : at + length] != answer:
                    raise IrisError(f"not the reply: {held[at : at + length]!r}")
                slot = held[at + 1]
                latencies.append(now - began[slot])
                began[slot] = now
                again.append(questions[slot])
            held = held[whole:]
            if now < until:
                send(b"".join(again))
            else:
                under_way -= len(again)
        return latencies


@contextmanager
def member(port: int) -> Iterator[None]:
    """Run the member that answers for as long as the block."""
    line = module("benchmarks.iris_member", CLUSTER, "--port", str(port))
    with subprocess.Popen(line, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            if process.stdout.readline() != b"ready\n":
                raise IrisError("the member did not start")
            yield
        finally:
            process.terminate()
            process.wait(LIMIT)


RUNS: dict[str, Callable[[Load], Result]] = {"request": requests, "attach": attachments}


def main(argv: Sequence[str]) -> None:
    pattern, argv = flags.choose(
        program="iris_side",
        summary="Measures how fast a relay serves programs written for Iris.",
        commands=PATTERNS,
        argv=argv,
    )
    load = flags.Command(
        f"iris_side {pattern}", Load, f"Measures how fast a relay is: {PATTERNS[pattern]}."
    ).parse(argv, None)
    try:
        print(RUNS[pattern](load).as_json())
    except (IrisError, OSError) as error:
        sys.exit(f"iris_side: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
