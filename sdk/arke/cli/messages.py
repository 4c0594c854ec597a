"""`arke request`, `arke broadcast`, `arke publish` and `arke subscribe`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from arke.cli import stdout as output
from arke.cli.exit_status import fail
from arke.cli.session import RELAY_TIMEOUT, AttachOptions, run
from arke.program import flags

_BODY = "the body; - reads it from stdin"

_MAX_STDIN = 256 * 1024 * 1024  # bounds memory; the relay has its own, lower limit

log = logging.getLogger("arke")


@dataclass(frozen=True, slots=True)
class _RequestOptions(AttachOptions):
    cluster: str = flags.argument("CLUSTER", parse=flags.name, help="cluster of the member")
    body: str = flags.argument("BODY", parse=str, help=_BODY)
    timeout: float = flags.flag(
        "TIME", parse=flags.seconds, default="5s", help="how long to wait for the reply"
    )


REQUEST = flags.Command(
    "arke request",
    _RequestOptions,
    "Sends a request to one member of a cluster and prints its reply.",
)


@dataclass(frozen=True, slots=True)
class _BroadcastOptions(AttachOptions):
    cluster: str = flags.argument("CLUSTER", parse=flags.name, help="cluster of the members")
    body: str = flags.argument("BODY", parse=str, help=_BODY)


BROADCAST = flags.Command(
    "arke broadcast", _BroadcastOptions, "Sends a message to every member of a cluster."
)


@dataclass(frozen=True, slots=True)
class _PublishOptions(AttachOptions):
    topic: str = flags.argument("TOPIC", parse=flags.name, help="topic of the message")
    body: str = flags.argument("BODY", parse=str, help=_BODY)


PUBLISH = flags.Command(
    "arke publish", _PublishOptions, "Sends a message to every subscriber of a topic."
)


@dataclass(frozen=True, slots=True)
class _SubscribeOptions(AttachOptions):
    topic: str = flags.argument("TOPIC", parse=flags.name, help="topic to subscribe to")


SUBSCRIBE = flags.Command(
    "arke subscribe",
    _SubscribeOptions,
    "Prints the messages published to a topic, one body a line, until Ctrl-C.",
)


def request(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Print the reply of one member, unchanged."""
    options = REQUEST.parse(argv, environ)
    body = _read_body(options.body)

    async def send() -> None:
        async with options.connect() as mesh:
            reply = await mesh.request(options.cluster, body, timeout=options.timeout)
        await output.write(reply + b"\n" if sys.stdout.isatty() else reply)

    run(send(), limit=options.timeout + RELAY_TIMEOUT)


def broadcast(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Send a broadcast."""
    options = BROADCAST.parse(argv, environ)
    body = _read_body(options.body)

    async def send() -> None:
        async with options.connect() as mesh:
            await mesh.broadcast(options.cluster, body)

    run(send(), limit=RELAY_TIMEOUT)


def publish(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Publish a message."""
    options = PUBLISH.parse(argv, environ)
    body = _read_body(options.body)

    async def send() -> None:
        async with options.connect() as mesh:
            await mesh.publish(options.topic, body)

    run(send(), limit=RELAY_TIMEOUT)


def subscribe(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Print the body of each event and a newline, until Ctrl-C."""
    options = SUBSCRIBE.parse(argv, environ)

    async def receive() -> None:
        dropped = 0
        async with options.connect() as mesh, mesh.subscribe(options.topic) as events:
            async for event in events:
                await output.write(event.body + b"\n")
                if events.dropped > dropped:
                    log.warning(
                        "dropped %d events: stdout is read too slowly", events.dropped - dropped
                    )
                    dropped = events.dropped

    run(receive(), limit=None)


def _read_body(body: str) -> bytes:
    if body != "-":
        return os.fsencode(body)  # the bytes that the shell passed, in any encoding
    if sys.stdin is None:
        fail("BODY is read from stdin, which is closed; for an empty body, add </dev/null")
    data = sys.stdin.buffer.read(_MAX_STDIN + 1)
    if len(data) > _MAX_STDIN:
        fail(f"stdin must not exceed {_MAX_STDIN} bytes; send it in parts")
    return data
