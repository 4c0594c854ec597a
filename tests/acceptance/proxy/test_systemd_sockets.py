"""Systemd socket activation: clients may connect before the proxy runs."""

from __future__ import annotations

import socket
import ssl
import sys
from pathlib import Path

from lab import Process
from support.admin_pages import fetch
from support.backends import GET, respond_with
from support.certificates import write_certificate
from support.connection import Connection, connect_tls
from support.deployment import Deployment, new_deployment
from support.processes import start_process
from support.programs import program
from support.waiting import LIMIT

# Binds a socket for each name, prints the ports, and executes the command in its arguments.
ACTIVATOR = """
import os, socket, sys
names = sys.argv[1].split(":")
sockets = [socket.socket() for _ in names]
for name, sock in zip(names, sockets):
    sock.bind(("127.0.0.1", 0))
    if name != "tls":  # the proxy itself must listen on this one; systemd would have done so
        sock.listen()
print("ports", *[sock.getsockname()[1] for sock in sockets], flush=True)
copies = [os.dup2(sock.fileno(), number) for number, sock in enumerate(sockets, 100)]
for number, copy in enumerate(copies, 3):
    os.dup2(copy, number)
os.environ.update(LISTEN_FDS=str(len(sockets)), LISTEN_PID=str(os.getpid()))
os.environ["LISTEN_FDNAMES"] = sys.argv[1]
os.execv(sys.argv[2], sys.argv[2:])
"""


def start_with_sockets(
    deployment: Deployment, names: str, *flags: str
) -> tuple[Process, list[int]]:
    """Start a proxy with inherited sockets of these names; return their ports."""
    backend = deployment.backend(respond_with("ok"))
    command = [*program("proxy"), "-choose", "static", "-backend", backend.address, *flags]
    process = start_process("proxy", [sys.executable, "-c", ACTIVATOR, names, *command])
    match = process.wait_for_line(r"ports( \d+)+", LIMIT)
    return process, [int(port) for port in match[0].split()[1:]]


def stop(process: Process) -> None:
    process.terminate()
    assert process.wait(LIMIT) == 0
    process.close()


def test_client_that_connects_before_start_is_answered() -> None:
    with new_deployment() as deployment:
        process, (port,) = start_with_sockets(deployment, "")
        early = Connection(socket.create_connection(("127.0.0.1", port), LIMIT))
        early.send(GET)
        process.wait_for_line(f"proxy listening address=127.0.0.1:{port} ", LIMIT)
        assert early.read_response()[1] == b"ok"
        early.close()
        stop(process)


def test_named_sockets_for_tls_and_admin(tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path, "a.example", file="a")
    flags = ("-tls-listen", ":0", "-cert", certificate, "-admin", "127.0.0.1:0")
    with new_deployment() as deployment:
        process, (tls, plain, admin) = start_with_sockets(deployment, "tls:other:admin", *flags)
        line = f"proxy listening address=127.0.0.1:{plain} .* tls=127.0.0.1:{tls}"
        process.wait_for_line(line, LIMIT)
        context = ssl.create_default_context(cafile=tmp_path / "a.pem")
        for connection in (
            connect_tls(tls, context, "a.example"),
            Connection(socket.create_connection(("127.0.0.1", plain), LIMIT)),
        ):
            connection.send(GET)
            assert connection.read_response()[1] == b"ok"
            connection.close()
        assert fetch(admin, "/-/healthz")[1] == b"OK\n"
        stop(process)


def test_named_socket_without_flag_is_a_one_line_error() -> None:
    with new_deployment() as deployment:
        for name, message in (("tls", "give -tls-listen and -cert"), ("admin", "give -admin")):
            process, _ = start_with_sockets(deployment, f"public:{name}")
            assert process.wait(LIMIT) == 2
            ports_line, error = process.log.splitlines()
            assert ports_line.startswith("ports ")
            assert error.startswith(f"proxy: LISTEN_FDNAMES has a socket named {name}: ")
            assert message in error
            process.close()
