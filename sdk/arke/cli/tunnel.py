"""`arke tunnel`: connect stdin and stdout with one member of a cluster."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import arke
from arke.cli import stdout as output
from arke.cli.exit_status import fail
from arke.cli.session import AttachOptions, run
from arke.cli.stdin import chunks
from arke.program import flags


@dataclass(frozen=True, slots=True)
class _TunnelOptions(AttachOptions):
    cluster: str = flags.argument("CLUSTER", parse=flags.name, help="cluster of the member")
    timeout: float = flags.flag(
        "TIME", parse=flags.seconds, default="5s", help="how long to wait for a member"
    )


TUNNEL = flags.Command(
    "arke tunnel",
    _TunnelOptions,
    "Sends stdin to one member of a cluster and writes its messages to stdout.",
)


def tunnel(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Forward until both directions are closed."""
    options = TUNNEL.parse(argv, environ)
    if sys.stdin is None:
        fail("stdin is closed; to send nothing, add </dev/null")
    run(_pipe(options), limit=None)


async def _pipe(options: _TunnelOptions) -> None:
    async with (
        options.connect() as mesh,
        mesh.tunnel(options.cluster, timeout=options.timeout) as opened,
    ):
        sending = asyncio.create_task(_send(opened))
        try:
            async for message in opened:
                await output.write(message)
            # If the member has closed the whole tunnel, it does not read the rest of stdin.
            if opened.peer_reads:
                await sending
        except arke.TunnelClosed:
            if sending.done():
                sending.result()  # its error is the cause
            raise
        finally:
            sending.cancel()


async def _send(opened: arke.Tunnel) -> None:
    try:
        async for data in chunks():
            await opened.send(data)
        opened.close_send()
    except arke.TunnelClosed:
        return  # the member stopped reading; what it still sends is written
    except Exception as error:
        opened.abort(str(error), type(error).__name__)
        raise
