"""A worker of the proxy: builds the parts, serves until it is told to leave.

The master starts it: python -P -m arke_proxy.processes.worker SEAT FLAGS…
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from typing import Any

import uvloop

import arke
from arke.program import flags
from arke_proxy.backends.dialer import Dialer
from arke_proxy.balancing.health_checks import AT_ONCE
from arke_proxy.balancing.setup import BalancingConfig, ClusterBalancers
from arke_proxy.connections.descriptors import Shares, raise_limit, share
from arke_proxy.connections.hub import Hub, Times, log
from arke_proxy.http.forwarded import Forwarding
from arke_proxy.main import PROGRAM, Options, certificates, choice, read
from arke_proxy.observability.access_log import AccessLog
from arke_proxy.observability.access_log_format import FORMATS
from arke_proxy.observability.admin import MOST_CONNECTIONS
from arke_proxy.observability.log_throttle import Complaints, quieten
from arke_proxy.observability.telemetry import Telemetry
from arke_proxy.processes.server import HttpListener, Server
from arke_proxy.processes.worker_config import WorkerConfig, read_secret
from arke_proxy.processes.worker_ipc import Line

_YOUNG = 20_000  # objects more than before, until garbage is looked for; thousands are at work
_PARTING = 5.0  # seconds that idle connections are kept after a reload; nobody is in a hurry


def main() -> None:
    seat = WorkerConfig.read(sys.argv[1])
    sys.argv[:2] = [PROGRAM]  # under which the relay logs it
    options = read(sys.argv[1:])
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    quieten(logging.getLogger("asyncio"))
    gc.freeze()  # what is here stays
    gc.set_threshold(_YOUNG, 10, 10)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal sends it to all; the master acts
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_run(options, seat))
        except arke.ProtocolError as error:
            sentence = f"what listens at 127.0.0.1:{options.port} is no relay of this version"
            flags.fail(PROGRAM, f"-port {options.port}: {sentence}: {error}", status=1)
        except arke.ArkeError as error:
            flags.fail(PROGRAM, str(error), status=1)


async def _run(options: Options, seat: WorkerConfig) -> None:
    loop = asyncio.get_running_loop()
    listeners = _listeners(options, seat)
    way = choice(options, read_secret(seat.secret))
    mesh = None if way.way == "static" else arke.connect(port=options.port)
    times = Times(
        silence=options.timeout,
        idle=options.idle,
        whole=options.total or math.inf,
        grace=options.grace,
    )
    starting = loop.create_task(_start(way, mesh, Dialer(loop, mesh, times.connect, AT_ONCE)))
    stopped = asyncio.Event()

    def stop() -> None:
        stopped.set()
        starting.cancel()  # nobody waits for the relay any more

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    line = Line(seat.line, loop)
    line.begin(gone=stop)
    await asyncio.wait((starting,))
    try:
        if starting.cancelled():
            return
        choosing = starting.result()
        routes = choosing.routes
        desk = Telemetry(line, _access_log(options, loop), pages=options.admin is not None)
        shares = _shares(options)
        hub = Hub(
            routes,
            times,
            loop,
            shares.clients,
            desk.recorder,
            Dialer(loop, mesh, times.connect, shares.backends),
            Forwarding(options.trust, options.forwarded, os.urandom),
            most_body=options.max_body,
            most_of_one=options.max_per_client,
        )
        choosing.on_departed(hub.departed)
        server = Server(hub)
        await desk.open(hub, routes, choosing.fault, _listener(seat, "admin"))
        await server.start(*listeners)
        line.ready()
        await _first(stopped.wait(), line.retired.wait())
        desk.leave()
        await _leave(server, hub, stopped, options.linger)
        await choosing.stop()
        desk.close()
    finally:
        line.end()
        if mesh:
            await mesh.close()


async def _start(
    way: BalancingConfig, mesh: arke.Mesh | None, checking: Dialer
) -> ClusterBalancers:
    if mesh:
        await mesh.__aenter__()
    say = Complaints(log, asyncio.get_running_loop().time).warn
    choosing = ClusterBalancers(way, mesh, checking, say)
    await choosing.start()
    return choosing


async def _leave(server: Server, hub: Hub, stopped: asyncio.Event, linger: float) -> None:
    """Finish what runs: after a reload in its own time, unless it is stopped meanwhile."""
    if not stopped.is_set():
        log.info("retired; open connections: %d", len(hub.clients))
        await _first(server.stop(linger, _PARTING), stopped.wait())
        if not stopped.is_set():
            return
    log.info("stopping; open connections: %d", len(hub.clients))
    await server.stop(hub.times.grace, hub.times.parting)


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait for one, and let go of the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for task in done:
        task.result()


def _listener(seat: WorkerConfig, name: str) -> socket.socket | None:
    number = seat.listeners.get(name)
    return None if number is None else socket.socket(fileno=number)


def _siblings(seat: WorkerConfig, name: str) -> list[socket.socket]:
    return [socket.socket(fileno=number) for number in seat.siblings.get(name, ())]


def _listeners(options: Options, seat: WorkerConfig) -> list[HttpListener]:
    public, tls = _listener(seat, "public"), _listener(seat, "tls")
    assert public
    listeners = [HttpListener(public, siblings=_siblings(seat, "public"))]
    if tls:
        listeners.append(HttpListener(tls, certificates(options), _siblings(seat, "tls")))
    return listeners


def _access_log(options: Options, loop: asyncio.AbstractEventLoop) -> AccessLog | None:
    if options.access_log is None:
        return None
    complaints = Complaints(log, loop.time)

    def complain(sentence: str) -> None:  # in another thread
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(complaints.warn, sentence, sentence)

    try:
        return AccessLog(options.access_log, FORMATS[options.access_format or "combined"], complain)
    except OSError as error:
        fault = error.strerror or error
        mend = "start its reader first" if error.errno == errno.ENXIO else "choose another file"
        flags.fail(PROGRAM, f"-access-log {options.access_log}: {fault}; {mend}")


def _shares(options: Options) -> Shares:
    limit = raise_limit()
    others = 2 * (options.workers - 1)  # siblings, with TLS and without
    others += (MOST_CONNECTIONS if options.admin else 0) + (AT_ONCE if options.check else 0)
    wanted = options.max_clients
    shares = share(limit, wanted, others)
    if wanted and wanted > shares.clients:
        fault = f"{limit} descriptors are enough for {shares.clients}"
        log.warning("-max-clients %d: %s; raise LimitNOFILE (ulimit -n)", wanted, fault)
    return shares


if __name__ == "__main__":
    main()
