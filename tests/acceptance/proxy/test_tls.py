"""TLS clients, and certificates that change while the proxy runs."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.backend_scripts import UPGRADE_REQUEST, UPGRADE_RESPONSE
from support.certificates import write_certificate
from support.connection import Connection
from support.needs import require_tool
from support.processes import start_process
from support.programs import program
from support.proxy_harness import ProxyHarness, proxy_harness
from support.waiting import LIMIT, wait_until

GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
GET_AND_CLOSE = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def module_harness(module_folder: Path) -> Iterator[ProxyHarness]:
    first = write_certificate(module_folder, "a.example", file="a")
    second = write_certificate(module_folder, "*.b.example", file="b")
    flags = ["-tls-listen", "127.0.0.1:0", "-cert", first, "-cert", second, "-timeout", "2s"]
    with proxy_harness(module_folder, *flags) as harness:
        yield harness


def echo_head(connection: Connection) -> None:
    while head := connection.read_head():
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(head) + head)


def client_context(module_folder: Path, file: str = "a") -> ssl.SSLContext:
    return ssl.create_default_context(cafile=module_folder / f"{file}.pem")


def connect(harness: ProxyHarness, context: ssl.SSLContext, name: str = "a.example") -> Connection:
    return harness.connect_tls(context, name)


def test_http1_over_tls(harness: ProxyHarness, module_folder: Path) -> None:
    harness.start_backends(echo_head)
    connection = connect(harness, client_context(module_folder))
    assert isinstance(connection.sock, ssl.SSLSocket)
    assert connection.sock.version() == "TLSv1.3"
    for _ in range(2):
        connection.send(GET)
        _, head = connection.read_response()
        assert b"X-Forwarded-Proto: https\r\n" in head
    connection.send(GET_AND_CLOSE)
    response, _ = connection.read_response()
    assert response.getheader("connection") == "close"
    assert connection.read_to_end() == b""  # an orderly TLS close, not a reset


def test_curl_over_tls(harness: ProxyHarness, module_folder: Path) -> None:
    harness.start_backends(echo_head)
    command = [require_tool("curl", "curl"), "--silent", "--show-error", "--fail", "--http1.1"]
    command += [
        "--cacert",
        str(module_folder / "b.pem"),
        "--resolve",
        f"x.b.example:{harness.tls_port}:127.0.0.1",
    ]
    url = f"https://x.b.example:{harness.tls_port}/"
    completed = subprocess.run([*command, url], capture_output=True, timeout=LIMIT, check=True)
    assert f"X-Forwarded-Host: x.b.example:{harness.tls_port}\r\n".encode() in completed.stdout


@pytest.mark.parametrize("size", [100, 5_000_000])
def test_response_before_close_is_complete(
    harness: ProxyHarness, module_folder: Path, size: int
) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size)

    harness.start_backends(script)
    connection = connect(harness, client_context(module_folder))
    connection.send(GET_AND_CLOSE)
    _, body = connection.read_response()
    assert len(body) == size
    assert connection.read_to_end() == b""


def test_truncated_response_is_an_error_over_tls(
    harness: ProxyHarness, module_folder: Path
) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    harness.start_backends(script)
    connection = connect(harness, client_context(module_folder))
    connection.send(GET)
    with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
        connection.read_to_end()


@pytest.mark.parametrize("backend_closes", [True, False])
def test_websocket_over_tls(
    harness: ProxyHarness, module_folder: Path, backend_closes: bool
) -> None:
    received_rests = []

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(UPGRADE_RESPONSE)
        connection.send(connection.read_exactly(4).upper())
        if not backend_closes:
            received_rests.append(connection.read_to_end())

    harness.start_backends(script)
    connection = connect(harness, client_context(module_folder))
    connection.send(UPGRADE_REQUEST)
    assert connection.read_head().startswith(b"HTTP/1.1 101")
    connection.send(b"ping")
    assert connection.read_exactly(4) == b"PING"
    if backend_closes:
        assert connection.read_to_end() == b""
    else:
        assert isinstance(connection.sock, ssl.SSLSocket)
        connection.sock.unwrap()
        connection.close()
        wait_until(lambda: received_rests == [b""])
    assert "returning true from eof_received" not in harness.process.log


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_tls_versions_are_rejected(
    harness: ProxyHarness, module_folder: Path, version: ssl.TLSVersion
) -> None:
    old = client_context(module_folder)
    old.minimum_version = old.maximum_version = version
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="EOF"):
        connect(harness, old)


def test_weak_ciphers_are_rejected(harness: ProxyHarness, module_folder: Path) -> None:
    old = client_context(module_folder)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    connection = connect(harness, old)
    assert isinstance(connection.sock, ssl.SSLSocket)
    cipher = connection.sock.cipher()
    assert cipher
    assert "GCM" in cipher[0]
    old.set_ciphers("ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA")
    with pytest.raises(ssl.SSLError, match="EOF"):
        connect(harness, old)


@pytest.mark.parametrize(
    "data", [GET, b"\x16\x03\x01", b""], ids=["plain HTTP", "incomplete ClientHello", "no data"]
)
def test_client_without_tls_on_tls_port_affects_no_other_client(
    harness: ProxyHarness, module_folder: Path, data: bytes
) -> None:
    harness.start_backends(echo_head)
    other_client = Connection(socket.create_connection(("127.0.0.1", harness.tls_port), LIMIT))
    other_client.send(data)
    if data == GET:
        assert not other_client.read_to_end().startswith(b"HTTP")
    connection = connect(harness, client_context(module_folder))
    connection.send(GET)
    assert connection.read_response()[0].status == 200
    other_client.close()


def test_changed_certificate_is_reloaded(harness: ProxyHarness, module_folder: Path) -> None:
    harness.start_backends(echo_head)
    before = connect(harness, client_context(module_folder))
    write_certificate(module_folder, "a.example", "new.example", file="a")
    harness.process.wait_for_line("certificate reloaded cert=.*a.pem", LIMIT)
    after = connect(harness, client_context(module_folder), "new.example")
    for connection in (before, after):
        connection.send(GET)
        assert connection.read_response()[0].status == 200
    (module_folder / "a.key").write_bytes(b"")
    harness.process.wait_for_line("certificate not reloaded: .* holds no private key", LIMIT)
    connect(harness, client_context(module_folder), "new.example")


def test_draining_closes_tls_connections(tmp_path: Path) -> None:
    argument = write_certificate(tmp_path, "c.example", file="c")
    flags = ["-tls-listen", "127.0.0.1:0", "-cert", argument]
    with proxy_harness(tmp_path, *flags) as harness:
        harness.start_backends(echo_head)
        connection = connect(harness, client_context(tmp_path, "c"), "c.example")
        connection.send(GET)
        connection.read_response()
        harness.process.terminate()
        assert connection.read_to_end() == b""
        harness.process.wait(LIMIT)  # although the client sends no close_notify
        assert "still open" not in harness.process.log


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-tls-listen", ":0"], "-tls-listen needs a certificate; give -cert CERT.pem,KEY.pem"),
        (["-cert", "x.pem"], "-cert needs -tls-listen, such as -tls-listen :8443"),
        (
            ["-tls-listen", ":0", "-cert", "/none/x.pem"],
            "-cert: /none/x.pem cannot be read: No such file or directory",
        ),
    ],
)
def test_unusable_certificate_stops_start_with_reason(flags: list[str], message: str) -> None:
    process = start_process(
        "proxy", [*program("proxy"), "-cluster", "web", "-listen", ":0", *flags]
    )
    assert process.wait(LIMIT) == 2
    assert process.log == f"proxy: {message}\n"
    process.close()
