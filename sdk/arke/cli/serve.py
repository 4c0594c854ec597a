"""`arke serve`: run a member of a cluster whose handler is a shell command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import arke
from arke.cli import shell
from arke.cli.session import AttachOptions
from arke.program import flags, logging
from arke.program.addresses import ip_port

_MAX_COMMANDS = 32  # processes at once; the default of arke.Limits suits coroutines
_AFTER_DEADLINE = 1.0  # seconds until a command is killed: the time-out of the caller comes first


def _http(value: str) -> str:
    ip_port(value)
    return value


@dataclass(frozen=True, slots=True)
class _ServeOptions(AttachOptions):
    cluster: str = flags.argument("CLUSTER", parse=flags.name, help="cluster to join")
    exec: str | None = flags.flag(
        "COMMAND", help="shell command that gets the body on stdin and prints the reply"
    )
    echo: bool = flags.switch(
        help="reply with the body of the request; echo the messages of tunnels"
    )
    http: str | None = flags.flag(
        "[IP]:PORT",
        parse=_http,
        help="address of an HTTP server to register for the cluster",
    )


SERVE = flags.Command(
    "arke serve",
    _ServeOptions,
    "Joins a cluster and handles its requests until SIGTERM or Ctrl-C. The caller of a command "
    "that fails gets an error with the end of its stderr.",
)


def serve(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Handle requests until SIGTERM or Ctrl-C, then finish the running ones."""
    options = SERVE.parse(argv, environ)
    handlers = (options.exec is not None) + options.echo
    if handlers > 1:
        flags.fail("arke", "-exec and -echo exclude each other")
    if not handlers and options.http is None:
        flags.fail("arke", "-exec COMMAND, -echo or -http ADDRESS is required")
    logging.configure("arke", "warn")
    service = arke.Service(
        options.cluster,
        limits=arke.Limits(requests=_MAX_COMMANDS),
        http=options.http,
        port=options.port,
        path=options.path,
    )

    command = options.exec
    if command is not None:

        @service.on_request
        async def run_command(request: arke.Request) -> bytes:
            timeout = request.remaining() + _AFTER_DEADLINE
            return await shell.run(command, request.body, timeout=timeout)

    if options.echo:

        @service.on_request
        async def echo_request(request: arke.Request) -> bytes:
            return request.body

        @service.on_tunnel
        async def echo_tunnel(tunnel: arke.Tunnel) -> None:
            async for message in tunnel:
                await tunnel.send(message)

    service.run()
