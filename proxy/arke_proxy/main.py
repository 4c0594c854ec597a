"""The `proxy` command: reads its flags, takes the ports, and becomes the master of its workers.

What is imported here is loaded before the ports are taken, and gone when the master runs.
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from typing import NoReturn

import arke
from arke import flags
from arke_proxy.operations.listeners import bind, inherited, mend
from arke_proxy.operations.plan import Plan, new_secret

PROGRAM = "proxy"
_MASTER = "arke_proxy.operations.master"
_MOST_WORKERS = 64
_EVERY = ("::", "0.0.0.0")  # noqa: S104 — how the kernel shows an empty host


def _cluster(name: str) -> str:
    arke.Service(name)  # raises ValueError for what cannot name a cluster
    return name


def _workers(text: str) -> int:
    number = flags.count(text)
    if not 1 <= number <= _MOST_WORKERS:
        raise ValueError(f"from 1 to {_MOST_WORKERS}, please")
    return number


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
        help="serve /-/healthz, /-/backends and /-/metrics; keep it on loopback",
    )
    access_log: str | None = flags.flag(
        "FILE|-", parse=flags.text, default=None, help="log each request there; - is stdout"
    )
    access_format: str = flags.flag(
        "common|combined|json",
        parse=flags.choice("common", "combined", "json"),
        default="combined",
        help="how the access log is written",
    )


def read(argv: list[str]) -> Options:
    """Return what the flags say, or end with one line and status 2."""
    return flags.parse(
        Options,
        program=PROGRAM,
        summary="Spread HTTP requests over the back ends that a cluster names.",
        argv=argv,
        environ=os.environ,
    )


def main() -> NoReturn:
    options = read(sys.argv[1:])
    listeners = _listen(options)
    host, port = listeners["public"].getsockname()[:2]
    where = flags.HostPort("" if host in _EVERY else host, port)
    plan = Plan(
        listeners={name: sock.fileno() for name, sock in listeners.items()},
        secret=new_secret(),
        workers=options.workers,
        grace=options.grace,
        greeting=f'proxy listening on {where}, forwarding to cluster "{options.cluster}"',
    )
    for number in (*plan.listeners.values(), plan.secret):
        os.set_inheritable(number, True)
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)  # said to this process alone
    # The process stays; what it has loaded so far goes.
    words = [sys.executable, "-P", "-m", _MASTER, plan.text(), *sys.argv[1:]]
    os.execv(sys.executable, words)  # noqa: S606 — no shell is wanted


def _listen(options: Options) -> dict[str, socket.socket]:
    try:
        listeners = inherited(os.environ)
    except (OSError, ValueError) as error:
        flags.fail(PROGRAM, f"LISTEN_FDS: {error}")
    wanted = {"public": ("-listen", options.listen), "admin": ("-admin", options.admin)}
    for name, (flag, where) in wanted.items():
        if where and name not in listeners:
            try:
                listeners[name] = bind(*where)
            except OSError as error:
                flags.fail(PROGRAM, f"{flag} {where}: {mend(error, flag)}")
    return listeners


if __name__ == "__main__":
    main()
