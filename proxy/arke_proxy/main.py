"""The `proxy` command: reads its flags, takes the ports, and becomes the master of its workers.

What is imported here is loaded before the ports are taken, and gone when the master runs.
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NoReturn

from arke.program import flags
from arke_proxy import flag_types as converters
from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing import flag_types as choosing_flags
from arke_proxy.balancing.members import Via
from arke_proxy.balancing.routes import Pattern
from arke_proxy.balancing.setup import BalancingConfig, read_key
from arke_proxy.balancing.sticky import cookie_name
from arke_proxy.clients.certificates import Certificates, Pair, pair
from arke_proxy.errors import BadCertificate
from arke_proxy.http.forwarded import Form, Network
from arke_proxy.processes.sockets import inherited, listen, mend
from arke_proxy.processes.worker_config import MasterConfig, new_secret

PROGRAM = "proxy"
_MASTER = "arke_proxy.processes.master"
_MOST_WORKERS = 64
_EVERY = ("::", "0.0.0.0")  # noqa: S104 — how the kernel shows an empty host


def _workers(text: str) -> int:
    number = flags.count(text)
    if not 1 <= number <= _MOST_WORKERS:
        raise ValueError(f"from 1 to {_MOST_WORKERS}, please")
    return number


@dataclass(frozen=True, slots=True)
class Options:
    cluster: str | None = flags.flag(
        "NAME", parse=flags.name, help="the cluster of the backends, for what no -route is for"
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
        "N", parse=flags.port, default=63450, help="of backends that answer with an IP alone"
    )
    choose: str = flags.flag(
        "WAY",
        parse=flags.choice("auto", "watch", "ask", "static"),
        default="auto",
        help="watch: among the addresses that members publish; ask: as the cluster answers; "
        "auto: watch once any member publishes one, ask until then; static: among -backend",
    )
    backend: tuple[BackendAddress, ...] = flags.flag(
        "IP:PORT", parse=choosing_flags.backend, repeat=True, help="one of -choose static"
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
        help="GET it from each backend every 2 s; who fails twice is out until it succeeds",
    )
    sticky: str | None = flags.flag(
        "COOKIE", parse=cookie_name, help="send visitors back to their backend by this cookie"
    )
    sticky_key: str | None = flags.flag(
        "FILE", help="the secret of these cookies, where several proxies share them"
    )
    timeout: float = flags.flag(
        "TIME",
        parse=flags.seconds,
        default="60s",
        help="how long a backend may stay silent, and a body stand still",
    )
    total: float | None = flags.flag(
        "TIME",
        parse=flags.seconds,
        help="how long a request and its answer may take in all, however they move",
    )
    idle: float = flags.flag(
        "TIME", parse=flags.seconds, default="75s", help="how long clients stay between requests"
    )
    max_clients: int | None = flags.flag(
        "N",
        parse=flags.count,
        help="connections of clients at once (default: half of the descriptors)",
    )
    max_per_client: int | None = flags.flag(
        "N", parse=flags.count, help="connections at once from one address (default: no limit)"
    )
    trust: tuple[Network, ...] = flags.flag(
        "CIDR",
        parse=converters.network,
        repeat=True,
        help="proxies in front whose word about their clients is believed",
    )
    forwarded: Form = flags.flag(
        "x|rfc7239|both",
        parse=converters.form,
        default="x",
        help="tell backends about clients in X-Forwarded-For and -Proto and -Host, or Forwarded",
    )
    max_body: int | None = flags.flag(
        "SIZE", parse=converters.size, help="the largest body of a request, such as 10m"
    )
    grace: float = flags.flag(
        "TIME", parse=flags.seconds, default="10s", help="how long to finish requests when stopped"
    )
    linger: float = flags.flag(
        "TIME",
        parse=flags.seconds,
        default="1h",
        help="how long connections live on in the old processes after a reload",
    )
    workers: int = flags.flag(
        "N", parse=_workers, default=1, help="processes that share the port; one a core at most"
    )
    admin: flags.HostPort | None = flags.flag(
        "HOST:PORT",
        parse=flags.listen_address,
        default=None,
        help="serve /-/healthz, /-/readyz, /-/backends and /-/metrics; keep it on loopback",
    )
    access_log: str | None = flags.flag(
        "FILE|-", parse=flags.text, default=None, help="log each request there; - is stdout"
    )
    access_format: str | None = flags.flag(
        "common|combined|json",
        parse=flags.choice("common", "combined", "json"),
        help="how the access log is written (default: combined)",
    )


def read(argv: list[str]) -> Options:
    """Return what the flags say, or end with one line and status 2."""
    return flags.parse(
        Options,
        program=PROGRAM,
        summary="Spread HTTP requests over the backends that a cluster names.",
        argv=argv,
        environ=os.environ,
    )


def choice(options: Options, shared: bytes) -> BalancingConfig:
    """Return how backends are chosen, or end with one line and status 2.

    `shared` is the secret of sticky cookies where there is no file of it.
    """
    file = options.sticky_key
    if file and not options.sticky:
        flags.fail(PROGRAM, "-sticky-key is the secret of cookies; name theirs with -sticky COOKIE")
    try:
        secret = read_key(Path(file)) if file else shared
    except ValueError as fault:
        flags.fail(PROGRAM, f"-sticky-key {file}: {fault}")
    except OSError as error:
        flags.fail(PROGRAM, f"-sticky-key {file}: {error.strerror or error}")
    made = BalancingConfig(
        way=options.choose,
        cluster=options.cluster,
        routes=options.route,
        backends=options.backend,
        default_port=options.backend_port,
        via=options.via,
        check=options.check,
        cookie=options.sticky,
        secret=secret,
    )
    if mistake := made.fault():
        flags.fail(PROGRAM, mistake)
    return made


def certificates(options: Options) -> Certificates | None:
    """Return what is presented to clients by TLS, or end with one line and status 2."""
    if options.tls_listen is None:
        if options.cert:
            flags.fail(PROGRAM, "-cert is for TLS; say where with -tls-listen :8443")
        return None
    if not options.cert:
        flags.fail(PROGRAM, "-tls-listen needs a certificate; give -cert CERT.pem,KEY.pem")
    try:
        return Certificates(options.cert)
    except BadCertificate as error:
        flags.fail(PROGRAM, f"-cert: {error}")


def main() -> NoReturn:
    options = read(sys.argv[1:])
    described = choice(options, b"").described  # or it ends: what is wrong is said before any work
    if options.access_format and not options.access_log:
        flags.fail(PROGRAM, "-access-format is for a log; say where with -access-log FILE")
    certificates(options)  # the same
    listeners = _listen(options)
    greeting = f"proxy listening on {_where(listeners['public'][0])}, forwarding to {described}"
    if "tls" in listeners:
        greeting = f"proxy listening with TLS on {_where(listeners['tls'][0])}\n{greeting}"
    plan = MasterConfig(
        listeners={name: [one.fileno() for one in socks] for name, socks in listeners.items()},
        secret=new_secret(),
        workers=options.workers,
        grace=options.grace,
        greeting=greeting,
    )
    for number in (*chain.from_iterable(plan.listeners.values()), plan.secret):
        os.set_inheritable(number, True)
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)  # said to this process alone
    # The process stays; what it has loaded so far goes.
    words = [sys.executable, "-P", "-m", _MASTER, plan.text(), *sys.argv[1:]]
    os.execv(sys.executable, words)  # noqa: S606 — no shell is wanted


def _where(sock: socket.socket) -> flags.HostPort:
    host, port = sock.getsockname()[:2]
    return flags.HostPort("" if host in _EVERY else host, port)


def _listen(options: Options) -> dict[str, list[socket.socket]]:
    try:
        listeners = {name: [sock] for name, sock in inherited(os.environ).items()}
    except (OSError, ValueError) as error:
        flags.fail(PROGRAM, f"LISTEN_FDS: {error}")
    if "tls" in listeners and not options.tls_listen:
        flags.fail(PROGRAM, "LISTEN_FDNAMES: a socket is named tls; give -tls-listen and -cert too")
    if "admin" in listeners and not options.admin:
        flags.fail(PROGRAM, "LISTEN_FDNAMES: a socket is named admin; give -admin too")
    wanted = {
        "public": ("-listen", options.listen),
        "tls": ("-tls-listen", options.tls_listen),
        "admin": ("-admin", options.admin),
    }
    for name, (flag, where) in wanted.items():
        if where and name not in listeners:
            try:
                listeners[name] = listen(*where, 1 if name == "admin" else options.workers)
            except OSError as error:
                flags.fail(PROGRAM, f"{flag} {where}: {mend(error, flag)}")
    return listeners


if __name__ == "__main__":
    main()
