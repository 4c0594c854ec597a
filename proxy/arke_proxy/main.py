"""The `proxy` command: reads its flags, builds the parts, runs until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import signal
import socket
import sys
from dataclasses import dataclass

import uvloop

import arke
from arke import flags
from arke_proxy.back_ends.dial import Dialer
from arke_proxy.choosing.ask import Ask
from arke_proxy.choosing.routes import Route, Routes
from arke_proxy.hub import Hub, Times, log
from arke_proxy.record import NoJournal
from arke_proxy.server import Server, bind

_PROGRAM = "proxy"
_OTHER_DESCRIPTORS = 16  # neither clients' nor back ends'


def _cluster(name: str) -> str:
    arke.Service(name)  # raises ValueError for what cannot name a cluster
    return name


@dataclass(frozen=True, slots=True)
class Options:
    cluster: str = flags.flag(
        "NAME", parse=_cluster, required=True, help="the cluster that knows the back ends"
    )
    listen: flags.HostPort = flags.flag(
        "[HOST]:PORT", parse=flags.listen_address, default=":8080", help="where browsers connect"
    )
    port: int = flags.flag(
        "N", parse=flags.port, default=55555, help="where the relay of this machine listens"
    )
    backend_port: int = flags.flag(
        "N", parse=flags.port, default=63450, help="of back ends that answer with an IP alone"
    )
    timeout: float = flags.flag(
        "TIME",
        parse=flags.seconds,
        default="60s",
        help="how long a back end may stay silent, and a body stand still",
    )
    grace: float = flags.flag(
        "TIME", parse=flags.seconds, default="10s", help="how long to finish requests when stopped"
    )


def main() -> None:
    options = flags.parse(
        Options,
        program=_PROGRAM,
        summary="Spread HTTP requests over the back ends that a cluster names.",
        argv=sys.argv[1:],
        environ=os.environ,
    )
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    most_clients = _allow_many_connections() // 2 - _OTHER_DESCRIPTORS
    try:
        sock = bind(*options.listen)
    except OSError as error:
        flags.fail(_PROGRAM, f"-listen {options.listen}: {_mend(error)}")
    with sock, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_run(options, sock, max(1, most_clients)))
        except arke.ProtocolError as error:
            sentence = f"what listens at 127.0.0.1:{options.port} is no relay of this version"
            flags.fail(_PROGRAM, f"-port {options.port}: {sentence}: {error}", status=1)
        except arke.ArkeError as error:
            flags.fail(_PROGRAM, str(error), status=1)


async def _run(options: Options, sock: socket.socket, most_clients: int) -> None:
    loop = asyncio.get_running_loop()
    mesh = arke.connect(port=options.port)
    attaching = loop.create_task(mesh.__aenter__())
    stopped = asyncio.Event()

    def stop() -> None:
        stopped.set()
        attaching.cancel()  # nobody waits for the relay any more

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await asyncio.wait((attaching,))
    if attaching.cancelled():
        return
    attaching.result()
    try:
        times = Times(silence=options.timeout, grace=options.grace)
        chooser = Ask(mesh, options.cluster, options.backend_port)
        routes = Routes(Route(options.cluster, chooser))
        dialer = Dialer(loop, mesh, times.connect)
        hub = Hub(routes, times, loop, most_clients, NoJournal(), dialer)
        server = Server(hub)
        await server.start(sock)
        where = flags.HostPort(options.listen.host, sock.getsockname()[1])
        log.info('proxy listening on %s, forwarding to cluster "%s"', where, options.cluster)
        await stopped.wait()
        log.info("stopping; open connections: %d", len(hub.clients))
        await server.stop()
    finally:
        await mesh.close()


def _allow_many_connections() -> int:
    """Raise the limit of descriptors to what this process may have, and return it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit


def _mend(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "the port is taken; stop what uses it, or choose another with -listen"
        case errno.EACCES:
            return "ports below 1024 need the right to bind them; choose another with -listen"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address; `ip address` shows those it has"
        case _:
            return f"{error.strerror or error}; give an address of this machine with -listen"


if __name__ == "__main__":
    main()
