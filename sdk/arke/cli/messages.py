"""`arke request`, `broadcast`, `publish` and `subscribe`: one message each way, for people."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from arke.cli import stdout as output
from arke.cli.exit_status import fail
from arke.cli.session import PROMPTLY, Attached, run
from arke.program import flags

_BODY = "what to send; - reads it from stdin"

_STDIN = 256 * 1024 * 1024  # of memory; what a message may hold the relay says by itself

log = logging.getLogger("arke")


@dataclass(frozen=True, slots=True)
class _RequestOptions(Attached):
    cluster: str = flags.argument("CLUSTER", parse=flags.name, help="whom to ask")
    body: str = flags.argument("BODY", parse=str, help=_BODY)
    timeout: float = flags.flag(
        "TIME", parse=flags.seconds, default="5s", help="how long to wait for the reply"
    )


REQUEST = flags.Command(
    "arke request", _RequestOptions, "Asks one member of a cluster and prints its reply."
)


@dataclass(frozen=True, slots=True)
class _BroadcastOptions(Attached):
    cluster: str = flags.argument("CLUSTER", parse=flags.name, help="whom to tell")
    body: str = flags.argument("BODY", parse=str, help=_BODY)


BROADCAST = flags.Command("arke broadcast", _BroadcastOptions, "Tells every member of a cluster.")


@dataclass(frozen=True, slots=True)
class _PublishOptions(Attached):
    topic: str = flags.argument("TOPIC", parse=flags.name, help="what it is about")
    body: str = flags.argument("BODY", parse=str, help=_BODY)


PUBLISH = flags.Command("arke publish", _PublishOptions, "Tells every subscriber of a topic.")


@dataclass(frozen=True, slots=True)
class _SubscribeOptions(Attached):
    topic: str = flags.argument("TOPIC", parse=flags.name, help="what to listen to")


SUBSCRIBE = flags.Command(
    "arke subscribe",
    _SubscribeOptions,
    "Prints what is published to a topic, one body a line, until Ctrl-C.",
)


def request(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Print the reply of one member, as it is."""
    options = REQUEST.parse(argv, environ)
    body = _read(options.body)

    async def ask() -> None:
        async with options.connect() as mesh:
            reply = await mesh.request(options.cluster, body, timeout=options.timeout)
        await output.write(reply + b"\n" if sys.stdout.isatty() else reply)

    run(ask(), limit=options.timeout + PROMPTLY)


def broadcast(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Tell every member of a cluster."""
    options = BROADCAST.parse(argv, environ)
    body = _read(options.body)

    async def tell() -> None:
        async with options.connect() as mesh:
            await mesh.broadcast(options.cluster, body)

    run(tell(), limit=PROMPTLY)


def publish(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Tell every subscriber of a topic."""
    options = PUBLISH.parse(argv, environ)
    body = _read(options.body)

    async def tell() -> None:
        async with options.connect() as mesh:
            await mesh.publish(options.topic, body)

    run(tell(), limit=PROMPTLY)


def subscribe(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Print the body of each event and a newline, until Ctrl-C."""
    options = SUBSCRIBE.parse(argv, environ)

    async def listen() -> None:
        dropped = 0
        async with options.connect() as mesh, mesh.subscribe(options.topic) as events:
            async for event in events:
                await output.write(event.body + b"\n")
                if events.dropped > dropped:
                    log.warning("%d events lost: read them faster", events.dropped - dropped)
                    dropped = events.dropped

    run(listen(), limit=None)


def _read(body: str) -> bytes:
    if body != "-":
        return os.fsencode(body)  # as the shell passed it, whatever its encoding
    if sys.stdin is None:
        fail("stdin is closed, and BODY is to be read from it; if nothing is to be, add </dev/null")
    read = sys.stdin.buffer.read(_STDIN + 1)
    if len(read) > _STDIN:
        fail(f"stdin holds more than {_STDIN} bytes; send it in parts")
    return read
