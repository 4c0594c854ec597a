"""HTTP through a tunnel: the backend listens on loopback of its node, the proxy runs on another."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from lab import Lab
from support.lab_relays import LINK_LIMIT, start_relays, status
from support.programs import program

GET = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=10).read().decode())"


def test_proxy_reaches_a_loopback_backend_of_another_node(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.hosts[:2]
    start_relays([near, far], tmp_path / "id_rsa")
    (tmp_path / "page").write_text("only here", encoding="ascii")
    web = [sys.executable, "-u", "-m", "http.server", "8000", "--bind", "127.0.0.1"]
    far.start(web, cwd=tmp_path).wait_for_line("Serving HTTP", LINK_LIMIT)
    far.start([*program("arke"), "serve", "web", "-http", "127.0.0.1:8000"])
    while "web" not in status(near)["clusters"]:
        time.sleep(0.1)
    proxy = near.start([*program("proxy"), "-cluster", "web", "-via", "auto"])
    proxy.wait_for_line("proxy listening", LINK_LIMIT)

    url = "http://127.0.0.1:8080/page"
    assert near.run([sys.executable, "-c", GET, url]).stdout.strip() == "only here"
    direct = near.run([sys.executable, "-c", GET, f"http://{far.address}:8000/page"], check=False)
    assert "refused" in direct.stderr


NAMES_LOOPBACK = """
import arke

service = arke.Service("web", http="[::ffff:127.0.0.1]:9000")

@service.on_request
async def answer(request):
    return b"[::ffff:127.0.0.1]:9000"

service.run()
"""
STATUS = """
import sys, urllib.request, urllib.error
try:
    response = urllib.request.urlopen(sys.argv[1], timeout=10)
except urllib.error.HTTPError as error:
    response = error
print(response.status, response.read().decode())
"""


def test_member_of_another_node_cannot_name_a_server_of_the_proxy_machine(
    lab: Lab, tmp_path: Path
) -> None:
    """Neither when it publishes a loopback address nor when it is asked for one."""
    near, far = lab.hosts[:2]
    start_relays([near, far], tmp_path / "id_rsa")
    (tmp_path / "page").write_text("secret of the proxy's machine", encoding="ascii")
    web = [sys.executable, "-u", "-m", "http.server", "9000", "--bind", "127.0.0.1"]
    near.start(web, cwd=tmp_path).wait_for_line("Serving HTTP", LINK_LIMIT)
    far.start([sys.executable, "-c", NAMES_LOOPBACK])
    while "web" not in status(near)["clusters"]:
        time.sleep(0.1)
    for port, choose in ((8081, "ask"), (8082, "watch")):
        arguments = ["-cluster", "web", "-choose", choose, "-listen", f"127.0.0.1:{port}"]
        near.start([*program("proxy"), *arguments]).wait_for_line("proxy listening", LINK_LIMIT)
        url = f"http://127.0.0.1:{port}/page"
        answer = near.run([sys.executable, "-c", STATUS, url]).stdout
        assert answer.startswith(("502", "503"))
        assert "secret" not in answer
