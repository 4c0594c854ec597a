"""`arke serve`: a member of a cluster out of any shell command."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import arke
from arke.cli import shell
from arke.cli.session import Attached, show_log
from arke.program import flags
from arke.runtime.http_server_address import parse_http_address

_AT_ONCE = 32  # a process each: the default of arke.Limits is meant for handlers


def _http(value: str) -> str:
    parse_http_address(value)
    return value


@dataclass(frozen=True, slots=True)
class _ServeOptions(Attached):
    cluster: str = flags.argument("CLUSTER", parse=flags.name, help="which cluster to join")
    exec: str | None = flags.flag(
        "COMMAND", help="shell command: the body is its stdin, its stdout the reply"
    )
    echo: bool = flags.switch(help="reply with the body itself; tunnels echo what they carry")
    http: str | None = flags.flag(
        "[IP]:PORT",
        parse=_http,
        help="where an HTTP server of this machine listens; others find it through the cluster",
    )


SERVE = flags.Command(
    "arke serve",
    _ServeOptions,
    "Joins a cluster and answers its requests until SIGTERM or Ctrl-C. A command that "
    "fails raises at the caller, with the end of its stderr.",
)


def serve(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Answer requests until SIGTERM or Ctrl-C, then finish what was begun."""
    options = SERVE.parse(argv, environ)
    ways = (options.exec is not None) + options.echo
    if ways > 1 or (not ways and options.http is None):
        flags.fail("arke", "say how to answer, with either -exec COMMAND or -echo, or use -http")
    show_log(logging.WARNING)
    service = arke.Service(
        options.cluster,
        limits=arke.Limits(requests=_AT_ONCE),
        http=options.http,
        port=options.port,
        path=options.path,
    )

    command = options.exec
    if command is not None:

        @service.on_request
        async def answer(request: arke.Request) -> bytes:
            return await shell.run(command, request.body, timeout=request.remaining())

    if options.echo:

        @service.on_request
        async def repeat(request: arke.Request) -> bytes:
            return request.body

        @service.on_tunnel
        async def converse(tunnel: arke.Tunnel) -> None:
            async for message in tunnel:
                await tunnel.send(message)

    service.run()
