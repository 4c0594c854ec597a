"""The `proxy` command: parse the flags, bind the ports, and exec the master process.

The modules imported here are loaded before the ports are bound. The exec frees their memory.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NoReturn

from arke.program import flags, logging
from arke_proxy import flag_types
from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing import flag_types as balancing_flags
from arke_proxy.balancing.config import BalancingConfig
from arke_proxy.balancing.members_balancer import Via
from arke_proxy.balancing.routes import Pattern
from arke_proxy.balancing.sticky_cookies import cookie_name, read_key
from arke_proxy.clients.certificates import CertificateFiles, Certificates, certificate_files
from arke_proxy.errors import InvalidCertificate
from arke_proxy.http.forwarded import ForwardedForm, Network
from arke_proxy.processes.socket_binding import bind_sockets, describe_bind_error
from arke_proxy.processes.systemd_sockets import inherited_sockets
from arke_proxy.processes.worker_config import MasterConfig, new_secret

PROGRAM = "proxy"
_MASTER = "arke_proxy.processes.master"
_MAX_WORKERS = 64
_ANY_ADDRESS = ("::", "0.0.0.0")  # noqa: S104 — what getsockname returns for an empty host


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """The flags of the `proxy` command."""

    cluster: str | None = flags.flag(
        "NAME", parse=flags.name, help="default cluster, when no -route matches"
    )
    route: tuple[tuple[Pattern, str], ...] = flags.flag(
        "HOST/PATH=NAME",
        parse=balancing_flags.route,
        repeat=True,
        help="cluster for a host, a path prefix or both; host * matches every host",
    )
    listen: flags.HostPort = flags.flag(
        "[HOST]:PORT", parse=flags.listen_address, default=":8080", help="address for HTTP clients"
    )
    tls_listen: flags.HostPort | None = flags.flag(
        "[HOST]:PORT",
        parse=flags.listen_address,
        help="address for TLS clients (HTTP/2 and HTTP/1.1)",
    )
    cert: tuple[CertificateFiles, ...] = flags.flag(
        "CERT.pem[,KEY.pem]",
        parse=certificate_files,
        repeat=True,
        help="TLS certificate and key, reloaded when the files change; the first is the default "
        "when no certificate matches the client's server name",
    )
    port: int = flags.flag(
        "N", parse=flags.port, default=55555, help="port of this machine's relay"
    )
    backend_port: int = flags.flag(
        "N", parse=flags.port, default=63450, help="port when a member answers with an IP alone"
    )
    choose: str = flags.flag(
        "WAY",
        parse=flags.choice("auto", "watch", "ask", "static"),
        default="auto",
        help="where backends come from; watch: addresses that members publish; ask: ask a member "
        "for each request; auto: watch if any member publishes an address, else ask; "
        "static: the -backend flags",
    )
    backend: tuple[BackendAddress, ...] = flags.flag(
        "IP:PORT",
        parse=balancing_flags.backend,
        repeat=True,
        help="backend address, with -choose static",
    )
    via: Via = flags.flag(
        "WAY",
        parse=balancing_flags.via,
        default="direct",
        help="how to connect to published addresses: direct, tunnel (through the mesh), "
        "or auto (direct, then tunnel)",
    )
    check: str | None = flags.flag(
        "PATH",
        parse=balancing_flags.path,
        help="active health check: GET this path from each backend every 2 s; two failures in a "
        "row eject it until a check passes",
    )
    sticky: str | None = flags.flag(
        "COOKIE",
        parse=cookie_name,
        help="sticky sessions: send each client to the same backend, by a cookie of this name",
    )
    sticky_key: str | None = flags.flag(
        "FILE", help="key file for sticky cookies that several proxies share"
    )
    timeout: float = flags.flag(
        "TIME",
        parse=flags.seconds,
        default="60s",
        help="maximum wait for a backend's answer, and for each piece of a body",
    )
    total: float | None = flags.flag(
        "TIME",
        parse=flags.seconds,
        help="maximum duration of a request, answer included (default: no limit)",
    )
    idle: float = flags.flag(
        "TIME",
        parse=flags.seconds,
        default="75s",
        help="close client connections without a request after this time",
    )
    max_clients: int | None = flags.flag(
        "N",
        parse=flags.count,
        help="maximum client connections (default: half of the file descriptors)",
    )
    max_per_client: int | None = flags.flag(
        "N", parse=flags.count, help="maximum connections per client address (default: no limit)"
    )
    trust: tuple[Network, ...] = flags.flag(
        "CIDR",
        parse=flag_types.network,
        repeat=True,
        help="trusted proxies; their X-Forwarded-* and Forwarded headers are kept",
    )
    forwarded: ForwardedForm = flags.flag(
        "x|rfc7239|both",
        parse=flag_types.form,
        default="x",
        help="headers that describe the client to backends: x (X-Forwarded-For, -Proto and "
        "-Host), rfc7239 (Forwarded), or both",
    )
    trace: bool = flags.switch(
        help="begin a sampled trace (traceparent) for each request that has none; a valid "
        "traceparent is always forwarded"
    )
    max_body: int | None = flags.flag(
        "SIZE",
        parse=flag_types.size,
        help="maximum size of a request body, such as 10m (default: no limit)",
    )
    request_trailers: bool = flags.switch(
        help="forward the trailer fields of requests (default: they are dropped)"
    )
    error_details: bool = flags.switch(
        help="name backends, members and clusters on error pages, for development (default: a page "
        "says what kind of fault it is; the log says more, under the request id of the page)"
    )
    grace: float = flags.flag(
        "TIME",
        parse=flags.seconds,
        default="10s",
        help="time to finish running requests when the proxy stops",
    )
    linger: float = flags.flag(
        "TIME",
        parse=flags.seconds,
        default="1h",
        help="time to finish open connections in the old workers after a reload",
    )
    workers: int = flags.flag(
        "N",
        parse=flags.number(1, _MAX_WORKERS),
        default=1,
        help="worker processes; at most one per CPU core",
    )
    admin: flags.HostPort | None = flags.flag(
        "HOST:PORT",
        parse=flags.listen_address,
        default=None,
        help="serve /-/healthz, /-/readyz, /-/backends and /-/metrics; use a loopback address",
    )
    admin_name: Sequence[str] = flags.flag(
        "NAME",
        parse=flags.text,
        repeat=True,
        help="another host name under which the pages of -admin may be requested; an IP address, "
        "localhost and this machine's name always may",
    )
    access_log: str | None = flags.flag(
        "FILE|-", parse=flags.text, default=None, help="access log file; - is stdout"
    )
    access_format: str | None = flags.flag(
        "common|combined|json",
        parse=flags.choice("common", "combined", "json"),
        help="access log format (default: combined)",
    )
    log_level: str = logging.level_flag()
    log_format: str = logging.format_flag()


COMMAND = flags.Command(
    PROGRAM,
    ProxyOptions,
    "HTTP reverse proxy: balance requests over the backends of Arke clusters.",
)


def parse_flags(argv: list[str]) -> ProxyOptions:
    """Parse the command line. Exits with one line and status 2 if it is invalid."""
    return COMMAND.parse(argv, os.environ)


def balancing_config(options: ProxyOptions, generated_secret: bytes) -> BalancingConfig:
    """Return the load-balancing configuration. Exits with one line and status 2 if it is invalid.

    `generated_secret` encrypts sticky cookies if there is no key file.
    """
    file = options.sticky_key
    if file and not options.sticky:
        flags.fail(PROGRAM, "-sticky-key needs -sticky COOKIE")
    try:
        secret = read_key(Path(file)) if file else generated_secret
    except ValueError as fault:
        flags.fail(PROGRAM, f"-sticky-key {file}: {fault}")
    except OSError as error:
        flags.fail(PROGRAM, f"-sticky-key {file}: {error.strerror or error}")
    config = BalancingConfig(
        choose=options.choose,
        cluster=options.cluster,
        routes=options.route,
        backends=options.backend,
        default_port=options.backend_port,
        via=options.via,
        check_path=options.check,
        cookie_name=options.sticky,
        cookie_secret=secret,
    )
    if conflict := config.conflict():
        flags.fail(PROGRAM, conflict)
    return config


def certificates(options: ProxyOptions) -> Certificates | None:
    """Load the TLS certificates. Exits with one line and status 2 if they are invalid."""
    if options.tls_listen is None:
        if options.cert:
            flags.fail(PROGRAM, "-cert needs -tls-listen, such as -tls-listen :8443")
        return None
    if not options.cert:
        flags.fail(PROGRAM, "-tls-listen needs a certificate; give -cert CERT.pem,KEY.pem")
    try:
        return Certificates(options.cert)
    except InvalidCertificate as error:
        flags.fail(PROGRAM, f"-cert: {error}")


def main() -> NoReturn:
    options = parse_flags(sys.argv[1:])
    # Check everything before binding: an invalid flag must not disturb a running proxy.
    target = balancing_config(options, b"").description
    if options.access_format and not options.access_log:
        flags.fail(PROGRAM, "-access-format needs -access-log FILE")
    certificates(options)
    sockets = _bind(options)
    greeting = {"address": str(_address(sockets["public"][0])), "backends": target}
    if "tls" in sockets:
        greeting["tls"] = str(_address(sockets["tls"][0]))
    config = MasterConfig(
        listeners={name: [one.fileno() for one in group] for name, group in sockets.items()},
        secret=new_secret(),
        workers=options.workers,
        grace=options.grace,
        greeting=greeting,
        log_level=options.log_level,
        log_format=options.log_format,
    )
    for descriptor in (*chain.from_iterable(config.listeners.values()), config.secret):
        os.set_inheritable(descriptor, True)
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)  # for this process only, not for its workers
    # The exec keeps the process id and frees the memory of the modules loaded so far.
    command = [sys.executable, "-P", "-m", _MASTER, config.to_json(), *sys.argv[1:]]
    os.execv(sys.executable, command)  # noqa: S606 — no shell is wanted


def _address(sock: socket.socket) -> flags.HostPort:
    host, port = sock.getsockname()[:2]
    return flags.HostPort("" if host in _ANY_ADDRESS else host, port)


def _bind(options: ProxyOptions) -> dict[str, list[socket.socket]]:
    """Return listening sockets by name: those that systemd passed, and newly bound ones."""
    try:
        sockets = {name: [sock] for name, sock in inherited_sockets(os.environ).items()}
    except (OSError, ValueError) as error:
        flags.fail(PROGRAM, f"LISTEN_FDS: {error}")
    if "tls" in sockets and not options.tls_listen:
        flags.fail(PROGRAM, "LISTEN_FDNAMES has a socket named tls: give -tls-listen and -cert")
    if "admin" in sockets and not options.admin:
        flags.fail(PROGRAM, "LISTEN_FDNAMES has a socket named admin: give -admin")
    wanted = {
        "public": ("-listen", options.listen),
        "tls": ("-tls-listen", options.tls_listen),
        "admin": ("-admin", options.admin),
    }
    for name, (flag, where) in wanted.items():
        if where and name not in sockets:
            try:
                sockets[name] = bind_sockets(*where, 1 if name == "admin" else options.workers)
            except OSError as error:
                flags.fail(PROGRAM, f"{flag} {where}: {describe_bind_error(error, flag)}")
    return sockets


if __name__ == "__main__":
    main()
