"""HTTP/2 with common clients: curl, nghttp, h2load."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.backends import OK
from support.certificates import write_certificate
from support.connection import Connection
from support.needs import require_tool
from support.proxy_harness import ProxyHarness, harness_for, proxy_harness
from support.relays import Relays
from support.waiting import LIMIT, wait_until


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("http2")


@pytest.fixture(scope="module")
def module_harness(folder: Path) -> Iterator[ProxyHarness]:
    certificate = write_certificate(folder, "a.example", file="a")
    flags = ("-tls-listen", "127.0.0.1:0", "-cert", certificate, "-max-body", "25m")
    with proxy_harness(folder, *flags) as harness:
        yield harness


@pytest.fixture(params=["tls", "plain"])
def curl(request: pytest.FixtureRequest, harness: ProxyHarness, folder: Path) -> list[str]:
    """Return a curl command for HTTP/2. Its last argument is the URL without a path."""
    command = [require_tool("curl", "curl"), "--silent", "--show-error", "--max-time", str(LIMIT)]
    if request.param == "plain":
        return [*command, "--http2-prior-knowledge", f"http://127.0.0.1:{harness.port}"]
    resolve = f"a.example:{harness.tls_port}:127.0.0.1"
    command += ["--cacert", str(folder / "a.pem"), "--resolve", resolve]
    return [*command, "--http2", f"https://a.example:{harness.tls_port}"]


def run(*command: str, check: bool = True) -> bytes:
    return subprocess.run(command, capture_output=True, timeout=2 * LIMIT, check=check).stdout


def read_request(connection: Connection) -> tuple[bytes, bytes]:
    """Read a request: its head, and its body, which has a Content-Length or is chunked."""
    head = connection.read_head()
    if match := re.search(rb"(?i)\r\ncontent-length: (\d+)", head):
        return head, connection.read_exactly(int(match[1]))
    body = b""
    if b"Transfer-Encoding: chunked" in head:
        while size := int(connection.read_until(b"\r\n"), 16):
            body += connection.read_exactly(size)
            connection.read_until(b"\r\n")
        connection.read_until(b"\r\n")
    return head, body


def echo_request(connection: Connection) -> None:
    while True:
        head, body = read_request(connection)
        if not head:
            return
        echo = head + body
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(echo) + echo)


def test_curl_get(harness: ProxyHarness, curl: list[str]) -> None:
    harness.start_backends(echo_request)
    *command, url = curl
    output = run(*command, "--include", "--header", "Cookie: a=1; b=2", f"{url}/path?x=1")
    head, _, body = output.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/2 200")
    assert b"\r\nvia: 1.1 arke" in head
    assert body.startswith(b"GET /path?x=1 HTTP/1.1\r\nHost: ")
    assert b"cookie: a=1; b=2\r\n" in body
    assert b"Transfer-Encoding" not in body
    assert b"X-Forwarded-Proto: http" + b"s" * url.startswith("https") + b"\r\n" in body


def test_curl_post(harness: ProxyHarness, curl: list[str], folder: Path) -> None:
    harness.start_backends(echo_request)
    *command, url = curl
    upload = folder / "body"
    upload.write_bytes(bytes(range(256)) * 8000)
    assert run(*command, "--data-binary", f"@{upload}", url).endswith(upload.read_bytes())
    unknown_length = ["--header", "Transfer-Encoding: chunked"]  # makes curl omit the length
    assert run(*command, *unknown_length, "--data-binary", f"@{upload}", url).endswith(
        upload.read_bytes()
    )


def test_curl_gets_responses_without_body(harness: ProxyHarness, curl: list[str]) -> None:
    def script(connection: Connection) -> None:
        while head := connection.read_head():
            if head.startswith(b"HEAD"):
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            elif b"/204" in head:
                connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            else:
                connection.send(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n")

    harness.start_backends(script)
    *command, url = curl
    assert b"content-length: 1000\r\n" in run(*command, "--head", f"{url}/")
    assert run(*command, "--include", f"{url}/204").startswith(b"HTTP/2 204")
    assert run(*command, "--include", f"{url}/304").startswith(b"HTTP/2 304")


def test_interim_responses_and_trailers(harness: ProxyHarness, curl: list[str]) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        connection.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Sum\r\nX-Odd: 1 \r\n"
            b"Connection: x-odd, keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n"
            b"5\r\nhello\r\n0\r\nSum: 12\r\n\r\n"
        )

    harness.start_backends(script)
    *command, url = curl
    output = run(*command, "--include", url)
    assert b"HTTP/2 103" in output
    assert b"\r\nlink: </x>\r\n" in output
    assert b"hello" in output
    assert b"sum: 12" in output
    assert not re.search(rb"(?i)x-odd|keep-alive|chunked", output)


def test_truncated_response_is_an_error(harness: ProxyHarness, curl: list[str]) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")

    harness.start_backends(script)
    *command, url = curl
    completed = subprocess.run([*command, url], capture_output=True, timeout=LIMIT, check=False)
    assert b"hello".startswith(completed.stdout)  # curl may process the reset before the data
    assert completed.returncode == 92
    assert b"INTERNAL_ERROR" in completed.stderr


def test_error_response_of_proxy_over_http2(harness: ProxyHarness, curl: list[str]) -> None:
    harness.cluster.answers = ["127.0.0.1:1"]
    *command, url = curl
    output = run(*command, "--include", url)
    assert output.startswith(b"HTTP/2 502")
    assert output.endswith(b".\n")


def test_large_responses(harness: ProxyHarness, curl: list[str]) -> None:
    body = bytes(range(256)) * 40_000

    def script(connection: Connection) -> None:
        while connection.read_head():
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    harness.start_backends(script)
    *command, url = curl
    assert run(*command, url) == body


def test_early_response_before_end_of_request(harness: ProxyHarness, folder: Path) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nmuch")
        connection.read_to_end()

    harness.start_backends(script)
    upload = folder / "much"
    upload.write_bytes(bytes(20_000_000))
    command = [require_tool("nghttp", "nghttp2-client"), "-d", str(upload)]
    assert run(*command, f"http://127.0.0.1:{harness.port}/") == b"much"


@pytest.mark.parametrize(("size", "status"), [(20_000_000, b"401"), (30_000_000, b"413")])
def test_curl_gets_early_response_during_upload(
    harness: ProxyHarness, curl: list[str], folder: Path, size: int, status: bytes
) -> None:
    """A backend responds 401 or the proxy 413. An immediate reset would make curl lose it."""

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nno.\n")
        connection.read_to_end()

    harness.start_backends(script)
    upload = folder / "upload"
    upload.write_bytes(bytes(size))
    *command, url = curl
    output = run(*command, "--include", "--upload-file", str(upload), f"{url}/", check=False)
    assert output.startswith(b"HTTP/2 " + status)
    assert output.endswith(b".\n")


def test_many_concurrent_streams(harness: ProxyHarness) -> None:
    harness.start_backends(echo_request)
    output = run(
        require_tool("h2load", "nghttp2-client"),
        *("-n", "3000", "-c", "2", "-m", "40"),
        f"http://127.0.0.1:{harness.port}/",
    )
    assert b"3000 succeeded, 0 failed, 0 errored" in output


def test_nghttp_with_priorities_and_a_body(harness: ProxyHarness, folder: Path) -> None:
    harness.start_backends(echo_request)
    upload = folder / "data"
    upload.write_bytes(b"data" * 1000)
    command = [require_tool("nghttp", "nghttp2-client"), "-m", "20", "-d", str(upload)]
    output = run(*command, f"http://127.0.0.1:{harness.port}/")
    assert output.count(upload.read_bytes()) == 20


def test_draining_proxy_finishes_streams(folder: Path, relays: Relays) -> None:
    request_received, may_respond = threading.Event(), threading.Event()

    def script(connection: Connection) -> None:
        connection.read_head()
        request_received.set()
        assert may_respond.wait(LIMIT)
        connection.send(OK)

    with harness_for(relays.start(), "web") as harness:
        harness.start_backends(script)
        command = [require_tool("curl", "curl"), "--silent", "--http2-prior-knowledge"]
        process = subprocess.Popen(
            [*command, f"http://127.0.0.1:{harness.port}/"], stdout=subprocess.PIPE
        )
        assert request_received.wait(LIMIT)
        harness.process.terminate()
        harness.process.wait_for_line("worker stopping", LIMIT)
        may_respond.set()
        assert process.communicate(timeout=LIMIT)[0] == b"ok"
        assert process.returncode == 0
        wait_until(lambda: not harness.process.running)
        assert "still open" not in harness.process.log
