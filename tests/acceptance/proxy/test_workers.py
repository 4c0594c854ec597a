"""Workers that share a port: they spread connections, and accept those of a worker that hangs."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.backends import GET, respond_with
from support.certificates import write_certificate
from support.connection import Connection
from support.deployment import Deployment, Proxy
from support.proxy_process import worker_pids
from support.waiting import LIMIT

LISTEN = "0A"  # the state LISTEN in /proc/net/tcp


def start_two_workers(deployment: Deployment, *flags: str) -> Proxy:
    backend = deployment.backend(respond_with("ok"))
    return deployment.proxy(
        "-choose", "static", "-backend", backend.address, "-workers", "2", *flags
    )


@contextmanager
def suspended(*pids: int) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def accept_queues(port: int) -> list[int]:
    """Return the accept queue length of each socket that listens on the port."""
    queues = []
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        _, local, _, state, queue, *_ = line.split()
        if state == LISTEN and int(local.partition(":")[2], 16) == port:
            queues.append(int(queue.partition(":")[2], 16))
    return queues


def test_connections_are_spread_over_workers(deployment: Deployment) -> None:
    proxy = start_two_workers(deployment)
    with suspended(*worker_pids(proxy.process)):
        connections = [proxy.connect() for _ in range(200)]
        first, second = accept_queues(proxy.port)
        assert first + second == 200
        assert min(first, second) > 50  # by chance this fails once in 10¹² runs
    for connection in connections:
        connection.send(GET)
        assert connection.read_response()[1] == b"ok"
        connection.close()


def test_connections_of_hanging_worker_are_accepted_by_another(deployment: Deployment) -> None:
    proxy = start_two_workers(deployment)
    with suspended(worker_pids(proxy.process)[0]):
        assert proxy.bodies(40) == {"ok"}


def test_connections_of_hanging_worker_are_accepted_by_another_with_tls(
    deployment: Deployment, tmp_path: Path
) -> None:
    certificate = write_certificate(tmp_path, "a.example")
    proxy = start_two_workers(deployment, "-tls-listen", "127.0.0.1:0", "-cert", certificate)
    match = proxy.process.wait_for_line(r" tls=127\.0\.0\.1:(\d+)", LIMIT)
    context = ssl.create_default_context(cafile=tmp_path / "server.pem")
    with suspended(worker_pids(proxy.process)[1]):
        for _ in range(40):
            plain = socket.create_connection(("127.0.0.1", int(match[1])), LIMIT)
            connection = Connection(context.wrap_socket(plain, server_hostname="a.example"))
            connection.send(GET)
            assert connection.read_response()[1] == b"ok"
            connection.close()
