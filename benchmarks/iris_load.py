"""Load generator for the Iris protocol: the counterpart of `arke bench`.

`python -m benchmarks.iris_load request|attach --port N …` prints the same JSON.
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
    detach,
    varint,
)
from benchmarks.processes import module_command

CLUSTER = "bench"
WARM_UP = 0.5
TIMEOUT_MS = 5000
PATTERNS = {
    "request": "one member of a cluster answers; the rate counts replies",
    "attach": "attach, register and detach, one after another",
}


@dataclass(frozen=True, slots=True)
class Load:
    """The load on the relay."""

    port: int = flags.flag("N", parse=flags.port, default=55555, help="port on 127.0.0.1")
    inflight: int = flags.flag("N", parse=flags.count, default=64, help="concurrent requests")
    size: int = flags.flag("BYTES", parse=flags.count, default=128, help="size of each body")
    seconds: float = flags.flag(
        "TIME", parse=flags.seconds, default=3.0, help="length of the measurement"
    )


def requests(load: Load) -> Result:
    """Keep `inflight` concurrent requests, first to warm up and then to measure."""
    with member(load.port):
        caller = Caller(load)
        caller.request_for(WARM_UP)
        began = time.perf_counter()
        latencies = caller.request_for(load.seconds)
        elapsed = time.perf_counter() - began
        detach(caller.sock)
    return result("request", load.size, latencies, elapsed)


def attachments(load: Load) -> Result:
    """Attach, register and detach repeatedly."""

    def attach_and_detach(seconds: float) -> array[int]:
        latencies = array("q")
        clock = time.perf_counter_ns
        began = clock()
        until = began + int(seconds * 1e9)
        while began < until:
            detach(attach(load.port, CLUSTER))
            ended = clock()
            latencies.append(ended - began)
            began = ended
        return latencies

    attach_and_detach(WARM_UP)
    began = time.perf_counter()
    latencies = attach_and_detach(load.seconds)
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
    """Sends the next request in a slot when its reply arrives; there are `inflight` slots.

    A slot is a request's number. It fits into one byte, so that all replies have the same length.
    """

    def __init__(self, load: Load) -> None:
        if load.inflight > 128:
            raise IrisError("at most 128 in flight")
        self.sock: socket.socket = attach(load.port)
        body = binary(secrets.token_bytes(load.size))
        self._inflight = load.inflight
        self._reply = b"\x00\x01" + body
        tail = binary(CLUSTER.encode()) + body + varint(TIMEOUT_MS)
        self._requests = [bytes([REQUEST, slot]) + tail for slot in range(load.inflight)]

    def request_for(self, seconds: float) -> array[int]:
        """Return the latencies of replies, in nanoseconds. Raises IrisError."""
        clock, receive, send = time.perf_counter_ns, self.sock.recv, self.sock.sendall
        requests_by_slot, answer = self._requests, self._reply
        length = 2 + len(answer)
        latencies = array("q")
        began = [clock()] * self._inflight
        until = began[0] + int(seconds * 1e9)
        send(b"".join(requests_by_slot))
        pending, held = self._inflight, b""
        while pending:
            data = receive(READ)
            if not data:
                raise IrisError("the relay closed the connection")
            held += data
            now = clock()
            again = []
            whole = len(held) - len(held) % length
            for at in range(0, whole, length):
                if held[at] != REPLY or held[at + 2 : at + length] != answer:
                    raise IrisError(f"unexpected reply: {held[at : at + length]!r}")
                slot = held[at + 1]
                latencies.append(now - began[slot])
                began[slot] = now
                again.append(requests_by_slot[slot])
            held = held[whole:]
            if now < until:
                send(b"".join(again))
            else:
                pending -= len(again)
        return latencies


@contextmanager
def member(port: int) -> Iterator[None]:
    """Run the replying member for the duration of the block."""
    line = module_command("benchmarks.iris_member", CLUSTER, "--port", str(port))
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
        program="iris_load",
        summary="Measures how fast a relay serves programs written for Iris.",
        commands=PATTERNS,
        argv=argv,
    )
    load = flags.Command(
        f"iris_load {pattern}", Load, f"Measures how fast a relay is: {PATTERNS[pattern]}."
    ).parse(argv, None)
    try:
        print(RUNS[pattern](load).as_json())
    except (IrisError, OSError) as error:
        sys.exit(f"iris_load: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
