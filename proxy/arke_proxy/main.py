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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import uvloop

import arke
from arke import flags
from arke_proxy import converters
from arke_proxy.back_ends.dial import Dialer
from arke_proxy.choosing import flags as choosing_flags
from arke_proxy.choosing.address import Address
from arke_proxy.choosing.members import Via
from arke_proxy.choosing.routes import Pattern
from arke_proxy.choosing.setup import Choice, Choosing, read_secret
from arke_proxy.choosing.sticky import cookie_name
from arke_proxy.clients.tls import Certificates, Pair, pair
from arke_proxy.complaints import Complaints
from arke_proxy.errors import BadCertificate
from arke_proxy.http1.forwarded import Form, Forwarding, Network
from arke_proxy.hub import Hub, Times, log
from arke_proxy.record import NoJournal
from arke_proxy.server import Listener, Server, bind

_PROGRAM = "proxy"
_OTHER_DESCRIPTORS = 16  # neither clients' nor back ends'


@dataclass(frozen=True, slots=True)
class Options:
    cluster: str | None = flags.flag(
        "NAME", parse=flags.name, help="the cluster of the back ends, for what no -route is for"
    )
    route: tuple[tuple[Pattern, str], ...] = flags.flag(
        "HOST/PATH=NAME",
        parse=choosing_flags.route,
        repeat=True,
        help="the cluster of one host, of the paths under one, or of both; host * is any",
    )
    listen: flags.HostPort = flags.flag(
        "[HOST]:PORT", parse=flags.listen_address, default=":8080", help="where browsers connect"
    )
    tls_listen: flags.HostPort | None = flags.flag(
        "[HOST]:PORT",
        parse=flags.listen_address,
        help="where they connect by TLS, with HTTP/2 or HTTP/1.1",
    )
    cert: tuple[Pair, ...] = flags.flag(
        "CERT.pem[,KEY.pem]",
        parse=pair,
        repeat=True,
        help="a certificate and its key, read anew when the files change; the first is for "
        "clients that ask for a name that none has",
    )
    port: int = flags.flag(
        "N", parse=flags.port, default=55555, help="where the relay of this machine listens"
    )
    backend_port: int = flags.flag(
        "N", parse=flags.port, default=63450, help="of back ends that answer with an IP alone"
    )
    choose: str = flags.flag(
        "WAY",
        parse=flags.choice("auto", "watch", "ask", "static"),
        default="auto",
        help="watch: among the addresses that members publish; ask: as the cluster answers; "
        "auto: watch once any member publishes one, ask until then; static: among -backend",
    )
    backend: tuple[Address, ...] = flags.flag(
        "IP:PORT", parse=choosing_flags.back_end, repeat=True, help="one of -choose static"
    )
    via: Via = flags.flag(
        "WAY",
        parse=choosing_flags.via,
        default="direct",
        help="to published addresses: direct, tunnel (of the mesh), or auto (what works)",
    )
    check: str | None = flags.flag(
        "PATH",
        parse=choosing_flags.path,
        help="GET it from each back end every 2 s; who fails twice is out until it succeeds",
    )
    sticky: str | None = flags.flag(
        "COOKIE", parse=cookie_name, help="send visitors back to their back end by this cookie"
    )
    sticky_key: str | None = flags.flag(
        "FILE", help="the secret of these cookies, where several proxies share them"
    )
    timeout: float = flags.flag(
        "TIME",
        parse=flags.seconds,
        default="60s",
        help="how long a back end may stay silent, and a body stand still",
    )
    trust: tuple[Network, ...] = flags.flag(
        "CIDR",
        parse=converters.network,
        repeat=True,
        help="proxies in front whose word about their clients is believed; may be given again",
    )
    forwarded: Form = flags.flag(
        "x|rfc7239|both",
        parse=converters.form,
        default="x",
        help="tell back ends about clients in X-Forwarded-For and -Proto and -Host, or Forwarded",
    )
    max_body: int | None = flags.flag(
        "SIZE", parse=converters.size, help="the largest body of a request, such as 10m"
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
    choice = _choice(options)
    most_clients = _allow_many_connections() // 2 - _OTHER_DESCRIPTORS
    listeners = _listeners(options)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_run(options, choice, listeners, max(1, most_clients)))
        except arke.ProtocolError as error:
            sentence = f"what listens at 127.0.0.1:{options.port} is no relay of this version"
            flags.fail(_PROGRAM, f"-port {options.port}: {sentence}: {error}", status=1)
        except arke.ArkeError as error:
            flags.fail(_PROGRAM, str(error), status=1)


def _choice(options: Options) -> Choice:
    try:
        secret = read_secret(Path(options.sticky_key) if options.sticky_key else None)
    except ValueError as fault:
        flags.fail(_PROGRAM, f"-sticky-key {options.sticky_key}: {fault}")
    except OSError as error:
        flags.fail(_PROGRAM, f"-sticky-key {options.sticky_key}: {error.strerror or error}")
    choice = Choice(
        way=options.choose,
        cluster=options.cluster,
        routes=options.route,
        back_ends=options.backend,
        default_port=options.backend_port,
        via=options.via,
        check=options.check,
        cookie=options.sticky,
        secret=secret,
    )
    if mistake := choice.fault():
        flags.fail(_PROGRAM, mistake)
    return choice


def _listeners(options: Options) -> list[Listener]:
    """Take the ports, and read the certificates."""
    listeners = [Listener(_bind("-listen", options.listen))]
    if options.tls_listen is None:
        if options.cert:
            flags.fail(_PROGRAM, "-cert is for TLS; say where with -tls-listen :8443")
        return listeners
    if not options.cert:
        flags.fail(_PROGRAM, "-tls-listen needs a certificate; give -cert CERT.pem,KEY.pem")
    try:
        certificates = Certificates(options.cert)
    except BadCertificate as error:
        flags.fail(_PROGRAM, f"-cert: {error}")
    return [*listeners, Listener(_bind("-tls-listen", options.tls_listen), certificates)]


def _bind(flag: str, where: flags.HostPort) -> socket.socket:
    try:
        return bind(*where)
    except OSError as error:
        flags.fail(_PROGRAM, f"{flag} {where}: {_mend(flag, error)}")


async def _run(
    options: Options, choice: Choice, listeners: Sequence[Listener], most_clients: int
) -> None:
    loop = asyncio.get_running_loop()
    mesh = None if choice.way == "static" else arke.connect(port=options.port)
    starting = loop.create_task(_start(choice, mesh))
    stopped = asyncio.Event()

    def stop() -> None:
        stopped.set()
        starting.cancel()  # nobody waits for the relay any more

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await asyncio.wait((starting,))
    try:
        if starting.cancelled():
            return
        choosing = starting.result()
        times = Times(silence=options.timeout, grace=options.grace)
        forwarding = Forwarding(options.trust, options.forwarded, Random().getrandbits)  # noqa: S311 — names, no secrets
        hub = Hub(
            choosing.routes,
            times,
            loop,
            most_clients,
            NoJournal(),
            Dialer(loop, mesh, times.connect),
            forwarding=forwarding,
            most_body=options.max_body,
        )
        server = Server(hub)
        await server.start(*listeners)
        if options.tls_listen:
            where = _actual(options.tls_listen, listeners[1].sock)
            log.info("proxy listening with TLS on %s", where)
        where = _actual(options.listen, listeners[0].sock)
        log.info("proxy listening on %s, forwarding to %s", where, choice.described)
        await stopped.wait()
        log.info("stopping; open connections: %d", len(hub.clients))
        await server.stop()
        await choosing.stop()
    finally:
        if mesh:
            await mesh.close()


async def _start(choice: Choice, mesh: arke.Mesh | None) -> Choosing:
    if mesh:
        await mesh.__aenter__()
    say = Complaints(log, asyncio.get_running_loop().time).warn
    choosing = Choosing(choice, mesh, say)
    await choosing.start()
    return choosing


def _actual(where: flags.HostPort, sock: socket.socket) -> flags.HostPort:
    """Fill in the port where the system chose one."""
    return flags.HostPort(where.host, sock.getsockname()[1])


def _allow_many_connections() -> int:
    """Raise the limit of descriptors to what this process may have, and return it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit


def _mend(flag: str, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"the port is taken; stop what uses it, or choose another with {flag}"
        case errno.EACCES:
            return f"ports below 1024 need the right to bind them; choose another with {flag}"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address; `ip address` shows those it has"
        case _:
            return f"{error.strerror or error}; give an address of this machine with {flag}"


if __name__ == "__main__":
    main()
