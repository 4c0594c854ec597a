"""The worker process: builds the parts of the proxy, and serves clients until it is stopped.

The master starts it: python -P -m arke_proxy.processes.worker CONFIG FLAGS…
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
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
from arke_proxy.balancing.cluster_balancers import ClusterBalancers
from arke_proxy.balancing.config import BalancingConfig
from arke_proxy.balancing.health_checks import MAX_CONCURRENT_CHECKS
from arke_proxy.connections.descriptors import (
    ConnectionLimits,
    connection_limits,
    raise_descriptor_limit,
)
from arke_proxy.connections.timeouts import TimeLimits
from arke_proxy.context import ProxyContext, new_context
from arke_proxy.http.forwarded import Forwarding
from arke_proxy.log import configure, log, warn_limited
from arke_proxy.main import PROGRAM, ProxyOptions, balancing_config, certificates, parse_flags
from arke_proxy.observability.access_log import AccessLog
from arke_proxy.observability.access_log_format import FORMATS
from arke_proxy.observability.telemetry import MAX_ADMIN_CONNECTIONS, Telemetry
from arke_proxy.processes.proxy_server import HttpListener, ProxyServer
from arke_proxy.processes.worker_config import WorkerConfig, read_secret
from arke_proxy.processes.worker_ipc import WorkerIpc

_GC_THRESHOLD = 20_000  # new objects before a collection; a busy worker has thousands at a time
_RETIRED_IDLE_TIMEOUT = 5.0  # seconds that idle connections are kept after a reload


def main() -> None:
    config = WorkerConfig.from_json(sys.argv[1])
    sys.argv[:2] = [PROGRAM]  # the program name that the relay logs
    options = parse_flags(sys.argv[1:])
    configure(options.log_level, options.log_format)
    gc.freeze()  # the objects that exist now stay for the whole run
    gc.set_threshold(_GC_THRESHOLD, 10, 10)
    # A closing terminal sends SIGHUP to all processes; only the master handles it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_run(options, config))
        except arke.ProtocolError as error:
            sentence = f"127.0.0.1:{options.port} is not a relay of this version"
            flags.fail(PROGRAM, f"-port {options.port}: {sentence}: {error}", status=1)
        except arke.ArkeError as error:
            flags.fail(PROGRAM, str(error), status=1)


async def _run(options: ProxyOptions, config: WorkerConfig) -> None:
    loop = asyncio.get_running_loop()
    listeners = _listeners(options, config)
    balancing = balancing_config(options, read_secret(config.secret))
    mesh = None if balancing.choose == "static" else arke.connect(port=options.port)
    time_limits = TimeLimits(
        progress=options.timeout,
        keep_alive=options.idle,
        total=options.total or math.inf,
        drain=options.grace,
    )
    check_dialer = Dialer(loop, mesh, time_limits.connect, MAX_CONCURRENT_CHECKS)
    starting = loop.create_task(_start_balancers(balancing, mesh, check_dialer))
    stopped = asyncio.Event()

    def stop() -> None:
        stopped.set()
        starting.cancel()  # it may be waiting for the relay

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    ipc = WorkerIpc(config.ipc, loop)
    ipc.start(on_master_exit=stop)
    await asyncio.wait((starting,))
    try:
        if starting.cancelled():
            return
        balancers = starting.result()
        admin = options.admin
        telemetry = Telemetry(
            ipc,
            _access_log(options, loop),
            pages=admin is not None,
            admin_names=(admin.host if admin else "", *options.admin_name),
        )
        limits = _connection_limits(options)
        context = new_context(
            loop=loop,
            routes=balancers.routes,
            dialer=Dialer(loop, mesh, time_limits.connect, limits.backends),
            forwarding=Forwarding(
                options.trust, options.forwarded, os.urandom, begins_traces=options.trace
            ),
            limits=time_limits,
            max_clients=limits.clients,
            max_per_address=options.max_per_client,
            max_body=options.max_body,
            request_trailers=options.request_trailers,
            error_details=options.error_details,
            recorder=telemetry.recorder,
        )
        balancers.on_departure(context.backends.close_idle)
        server = ProxyServer(context)
        await telemetry.start(context, balancers, _inherited_socket(config, "admin"))
        await server.start(*listeners)
        ipc.ready()
        await _wait_first(stopped.wait(), ipc.retired.wait())
        await telemetry.stop_pages()
        await _drain(server, context, stopped, options.linger)
        await balancers.stop()
        await telemetry.close()
    finally:
        ipc.close()
        if mesh:
            await mesh.close()


async def _start_balancers(
    config: BalancingConfig, mesh: arke.Mesh | None, check_dialer: Dialer
) -> ClusterBalancers:
    if mesh:
        await mesh.__aenter__()
    balancers = ClusterBalancers(config, mesh, check_dialer, warn_limited)
    await balancers.start()
    return balancers


async def _drain(
    server: ProxyServer, context: ProxyContext, stopped: asyncio.Event, linger: float
) -> None:
    """Finish running requests: within `linger` after a reload, within the grace period if stopped.

    A signal to stop may arrive while a retired worker finishes its connections.
    """
    if not stopped.is_set():
        log.info("worker retired", connections=len(context.clients))
        await _wait_first(server.stop(linger, _RETIRED_IDLE_TIMEOUT), stopped.wait())
        if not stopped.is_set():
            return
    log.info("worker stopping", connections=len(context.clients))
    limits = context.timeouts.limits
    await server.stop(limits.drain, limits.drain_idle)


async def _wait_first(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait until the first of `waits` completes, and cancel the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for task in done:
        task.result()


def _inherited_socket(config: WorkerConfig, name: str) -> socket.socket | None:
    descriptor = config.listeners.get(name)
    return None if descriptor is None else socket.socket(fileno=descriptor)


def _siblings(config: WorkerConfig, name: str) -> list[socket.socket]:
    return [socket.socket(fileno=descriptor) for descriptor in config.siblings.get(name, ())]


def _listeners(options: ProxyOptions, config: WorkerConfig) -> list[HttpListener]:
    public, tls = _inherited_socket(config, "public"), _inherited_socket(config, "tls")
    assert public
    listeners = [HttpListener(public, siblings=_siblings(config, "public"))]
    if tls:
        listeners.append(HttpListener(tls, certificates(options), _siblings(config, "tls")))
    return listeners


def _access_log(options: ProxyOptions, loop: asyncio.AbstractEventLoop) -> AccessLog | None:
    if options.access_log is None:
        return None

    def warn(reason: str) -> None:
        warn_limited(reason, "access log failed", reason=reason)

    def warn_from_thread(reason: str) -> None:  # called in the writer thread
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(warn, reason)

    try:
        return AccessLog(
            options.access_log, FORMATS[options.access_format or "combined"], warn_from_thread
        )
    except OSError as error:
        fault = error.strerror or error
        fix = "start its reader first" if error.errno == errno.ENXIO else "choose another file"
        flags.fail(PROGRAM, f"-access-log {options.access_log}: {fault}; {fix}")


def _connection_limits(options: ProxyOptions) -> ConnectionLimits:
    limit = raise_descriptor_limit()
    reserved = 2 * (options.workers - 1)  # sockets of the siblings, with TLS and without
    reserved += MAX_ADMIN_CONNECTIONS if options.admin else 0
    reserved += MAX_CONCURRENT_CHECKS if options.check else 0
    wanted = options.max_clients
    limits = connection_limits(limit, wanted, reserved)
    if wanted and wanted > limits.clients:
        log.warning(
            "too few file descriptors for -max-clients: raise LimitNOFILE (ulimit -n)",
            max_clients=wanted,
            descriptors=limit,
            allowed=limits.clients,
        )
    return limits


if __name__ == "__main__":
    main()
