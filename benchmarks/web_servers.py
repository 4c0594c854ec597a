"""An nginx backend, and the competitors nginx and HAProxy: Debian packages, one worker each."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measure import BenchError
from benchmarks.processes import run_to_end, running
from benchmarks.relays import free_ports

COMMAND_TIMEOUT = 10.0
SMALL = "/small"
LARGE = "/large"
LARGE_SIZE = 100 * 1024
_SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin"
_TEMP_PATH_KINDS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

StartProxy = Callable[[int, Path | None], contextlib.AbstractContextManager[int]]
"""A context manager. It takes the backend's port and a PEM file for TLS (None: plain HTTP), and
yields the proxy's port."""


def prepare() -> dict[str, str]:
    """Check that the required programs are installed; return the versions of nginx and HAProxy.

    Raises `BenchError` with the command that installs a missing one.
    """
    for name, package in (
        ("nginx", "nginx"),
        ("haproxy", "haproxy"),
        ("wrk", "wrk"),
        ("h2load", "nghttp2-client"),
        ("openssl", "openssl"),
    ):
        if shutil.which(name, path=_path()) is None:
            raise BenchError(f"{name} is missing: apt-get install {package}")
    haproxy = run_to_end([binary("haproxy"), "-v"], COMMAND_TIMEOUT).split()
    # nginx prints its version to stderr only, so ask the package.
    nginx = run_to_end(["dpkg-query", "-W", "-f=${Version}", "nginx"], COMMAND_TIMEOUT)
    return {"nginx": nginx, "haproxy": haproxy[2]}


def binary(name: str) -> str:
    return shutil.which(name, path=_path()) or name


def _path() -> str:
    # Debian installs servers in folders that are not in a user's PATH.
    return f"{os.environ.get('PATH', '')}:{_SYSTEM_FOLDERS}"


@contextlib.contextmanager
def backend() -> Iterator[int]:
    """Start nginx, which responds with 12 bytes or 100 KiB."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "large").write_bytes(b"x" * LARGE_SIZE)
        folder.chmod(0o755)  # the worker runs as another user
        locations = f"""
            location = {SMALL} {{ return 200 "hello, you!\\n"; }}
            location = {LARGE} {{ root {folder}; sendfile on; }}
        """
        with _nginx(folder, locations, upstream="", tls="") as port:
            yield port


@contextlib.contextmanager
def nginx_proxy(backend_port: int, certificate: Path | None) -> Iterator[int]:
    """Start nginx as a proxy, with keep-alive upstreams as in its manual."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        locations = """
            location / {
                proxy_pass http://behind;
                proxy_http_version 1.1;
                proxy_set_header Connection "";
                proxy_set_header Host $host;
                proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            }
        """
        upstream = f"upstream behind {{ server 127.0.0.1:{backend_port}; keepalive 128; }}"
        tls = ""
        if certificate:
            tls = f"ssl_certificate {certificate}; ssl_certificate_key {certificate};"
        with _nginx(folder, locations, upstream=upstream, tls=tls) as port:
            yield port


@contextlib.contextmanager
def _nginx(folder: Path, locations: str, *, upstream: str, tls: str) -> Iterator[int]:
    port = free_ports("127.0.0.1", 1)
    config = folder / "nginx.conf"
    config.write_text(f"""
        daemon off;
        worker_processes 1;
        pid {folder}/pid;
        error_log stderr error;
        events {{ worker_connections 15000; }}
        http {{
            access_log off;
            keepalive_requests 1000000000;
            {" ".join(f"{kind}_temp_path {folder}/{kind};" for kind in _TEMP_PATH_KINDS)}
            {upstream}
            server {{
                listen 127.0.0.1:{port} {"ssl" if tls else ""} backlog=4096;
                {tls}
                {locations}
            }}
        }}
    """)
    log = folder / "log"
    with running([binary("nginx"), "-e", "stderr", "-c", str(config)], log):
        wait_for_port(port, "nginx")
        yield port


@contextlib.contextmanager
def haproxy(backend_port: int, certificate: Path | None) -> Iterator[int]:
    """Start HAProxy with one thread."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        port = free_ports("127.0.0.1", 1)
        config = folder / "haproxy.cfg"
        tls = f"ssl crt {certificate}" if certificate else ""
        config.write_text(f"""
global
    nbthread 1
    maxconn 4000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option http-keep-alive
    http-reuse always
frontend front
    bind 127.0.0.1:{port} {tls} backlog 4096
    option forwardfor
    default_backend behind
backend behind
    server one 127.0.0.1:{backend_port}
""")
        with running([binary("haproxy"), "-db", "-f", str(config)], folder / "log"):
            wait_for_port(port, "haproxy")
            yield port


def wait_for_port(port: int, name: str) -> None:
    """Wait until the port accepts connections. Raises `BenchError` on timeout."""
    deadline = time.monotonic() + COMMAND_TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), COMMAND_TIMEOUT).close()
            return
        time.sleep(0.01)
    raise BenchError(f"{name} did not start")


def make_certificate(folder: Path) -> Path:
    """Create a self-signed certificate with its key in one file."""
    key, certificate, both = folder / "key", folder / "certificate", folder / "both.pem"
    run_to_end(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        ],
        COMMAND_TIMEOUT,
    )
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    return both
