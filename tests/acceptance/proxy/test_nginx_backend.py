"""nginx as a backend: files, ranges, compression, uploads and forwarded headers."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.deployment import Proxy, new_deployment
from support.needs import require_tool
from support.ports import free_port
from support.processes import start_process
from support.waiting import LIMIT

CONFIG = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    gzip on;
    gzip_proxied any;
    gzip_types *;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/1;
    fastcgi_temp_path {folder}/2;
    uwsgi_temp_path {folder}/3;
    scgi_temp_path {folder}/4;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/files;
        location /put/ {{ dav_methods PUT; create_full_put_path on; client_max_body_size 0; }}
        location /forwarded {{ return 200 "$http_host $http_x_forwarded_for $http_via"; }}
        location /short {{ keepalive_requests 1; return 200 "short"; }}
    }}
}}
"""
LARGE = hashlib.shake_256(b"file").digest(5_000_000)
VERSIONS = pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nginx")


@pytest.fixture(scope="module")
def proxy(folder: Path) -> Iterator[Proxy]:
    files = folder / "files"
    (files / "put").mkdir(parents=True)
    (files / "large").write_bytes(LARGE)
    (files / "text").write_text("to be or not to be\n" * 1000, encoding="utf-8")
    port = free_port()
    config = folder / "nginx.conf"
    # Otherwise nginx's workers run as another user, which may not read the test's folder.
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(CONFIG.format(user=user, folder=folder, port=port), encoding="utf-8")
    command = [require_tool("nginx", "nginx"), "-e", "stderr", "-c", str(config)]
    nginx = start_process("nginx", command)
    try:
        with new_deployment() as deployment:
            yield deployment.proxy("-choose", "static", "-backend", f"127.0.0.1:{port}")
    finally:
        sys.stdout.write(nginx.tail())
        nginx.terminate()
        nginx.wait(LIMIT)
        nginx.close()


def curl(proxy: Proxy, path: str, *arguments: str) -> bytes:
    command = [require_tool("curl", "curl"), "--silent", "--show-error", "--max-time", str(LIMIT)]
    command += ["--retry", "5", "--retry-all-errors"]  # until nginx listens
    url = f"http://127.0.0.1:{proxy.port}{path}"
    return subprocess.run([*command, *arguments, url], capture_output=True, check=True).stdout


@VERSIONS
def test_file_range_and_head(proxy: Proxy, version: str) -> None:
    assert curl(proxy, "/large", version) == LARGE
    range_response = curl(proxy, "/large", version, "--range", "1000000-1000009", "--include")
    head, _, body = range_response.partition(b"\r\n\r\n")
    assert b" 206" in head.partition(b"\r\n")[0]
    assert body == LARGE[1_000_000:1_000_010]
    head = curl(proxy, "/large", version, "--head").lower()
    assert b"\r\ncontent-length: 5000000\r\n" in head
    assert head.count(b"\r\ndate: ") == 1


@VERSIONS
def test_matching_etag_is_304(proxy: Proxy, version: str) -> None:
    head = curl(proxy, "/text", version, "--head")
    (etag,) = [line for line in head.splitlines() if line.lower().startswith(b"etag: ")]
    condition = "If-None-Match: " + etag.decode().partition(": ")[2]
    response = curl(proxy, "/text", version, "--include", "--header", condition)
    assert b" 304" in response.partition(b"\r\n")[0]
    assert response.endswith(b"\r\n\r\n")


@VERSIONS
def test_compressed_response_is_chunked(proxy: Proxy, version: str) -> None:
    assert curl(proxy, "/text", version, "--compressed") == b"to be or not to be\n" * 1000
    head = curl(proxy, "/text", version, "--compressed", "--dump-header", "-", "--output", "-")
    assert b"\r\ncontent-encoding: gzip\r\n" in head.lower()


@VERSIONS
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_upload_to_nginx(proxy: Proxy, folder: Path, version: str, framing: str) -> None:
    name = f"/put/{version}-{framing}"
    arguments = [version, "--upload-file", str(folder / "files" / "large")]
    if framing == "chunked" and version == "--http1.1":
        arguments += ["--header", "Transfer-Encoding: chunked"]
    elif framing == "chunked":
        arguments += ["--header", "Content-Length:"]
    assert curl(proxy, name, *arguments, "--write-out", "%{http_code}") == b"201"
    assert curl(proxy, name, version) == LARGE


@VERSIONS
def test_forwarded_headers_reach_nginx(proxy: Proxy, version: str) -> None:
    forwarded = curl(proxy, "/forwarded", version).decode()
    number = {"--http1.1": "1.1"}.get(version, "2.0")
    assert forwarded == f"127.0.0.1:{proxy.port} 127.0.0.1 {number} arke"


@VERSIONS
def test_backend_that_closes_after_each_response(proxy: Proxy, version: str) -> None:
    assert [curl(proxy, "/short", version) for _ in range(5)] == [b"short"] * 5
