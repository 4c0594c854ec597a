"""What clients notice of others that only stay, and of a back end that dies."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import BenchError, Figures
from benchmarks.processes import module, running
from benchmarks.relays import free_ports
from benchmarks.web_idlers import COUNT
from benchmarks.web_loads import CONNECTIONS, at_rate
from benchmarks.web_proxies import LISTENING, await_line
from benchmarks.web_servers import SMALL, START_LIMIT, back_end, binary

_RATE = 2_000.0  # requests a second, of the others
_GLANCE = 0.001  # seconds between two looks at the rotation
_UNANSWERED = re.compile(r"(?:Non-2xx or 3xx responses: (\d+)|connect (\d+), read (\d+))")


def beside_idlers(seconds: float) -> Figures:
    """Measure others, then come with ten thousand that ask once and stay, and measure again."""
    with back_end() as port, _proxy(("-backend", f"127.0.0.1:{port}")) as (here, _, log):
        url = f"http://127.0.0.1:{here}{SMALL}"
        alone = at_rate(url, _RATE, seconds)["p99_us"]
        workers = log.parent / "idlers"
        before = _resident(log)
        with running(module("benchmarks.web_idlers", str(here), SMALL), workers):
            await_line(workers, re.compile("ready"), 60.0)
            each = (_resident(log) - before) / COUNT
            beside = at_rate(url, _RATE, seconds)["p99_us"]
    return {"each": each, "alone": alone, "beside": beside, "times": beside / alone}


def killed_under_load(seconds: float) -> Figures:
    """Kill one of three back ends in the midst of sixty-four connections' requests."""
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(back_end()) for _ in range(2)]
        victim, port = stack.enter_context(_python_back_end())
        words = [word for each in (*ports, port) for word in ("-backend", f"127.0.0.1:{each}")]
        here, admin, _ = stack.enter_context(_proxy(words))
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(2, round(seconds))}s"]
        load = subprocess.Popen(
            [*command, f"http://127.0.0.1:{here}{SMALL}"], stdout=subprocess.PIPE, text=True
        )
        time.sleep(seconds / 3)
        victim.kill()
        killed = time.monotonic()
        while _in_rotation(admin, port):
            if time.monotonic() - killed > START_LIMIT:
                raise BenchError("the dead back end stays in rotation")
            time.sleep(_GLANCE)
        out = time.monotonic() - killed
        text, _ = load.communicate(timeout=seconds + START_LIMIT)
    failed = sum(int(count) for match in _UNANSWERED.findall(text) for count in match if count)
    return {"failed": float(failed), "out": out * 1e6}


@contextlib.contextmanager
def _proxy(words: tuple[str, ...] | list[str]) -> Iterator[tuple[int, int, Path]]:
    """Run a proxy with these back ends; gives its port, that of its pages, and its log."""
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "proxy")
        admin = free_ports("127.0.0.1", 1)
        command = module("arke_proxy.main", "-choose", "static", "-listen", "127.0.0.1:0")
        command += ["-admin", f"127.0.0.1:{admin}", "-max-clients", "15000", *words]
        with running(command, log) as process:
            here = int(await_line(log, LISTENING)[1])
            (Path(scratch) / "pid").write_text(str(process.pid))
            yield here, admin, log


@contextlib.contextmanager
def _python_back_end() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A back end of one process, which can be killed at once."""
    with tempfile.TemporaryDirectory() as scratch:
        port = free_ports("127.0.0.1", 1)
        config = Path(scratch, "nginx.conf")
        config.write_text(f"""
            daemon off; master_process off; pid {scratch}/pid; error_log stderr crit;
            events {{ worker_connections 1000; }}
            http {{
                access_log off;
                server {{ listen 127.0.0.1:{port}; location / {{ return 200 "hello, you!\\n"; }} }}
            }}
        """)
        command = [binary("nginx"), "-e", "stderr", "-c", str(config)]
        with running(command, Path(scratch, "log")) as process:
            give_up = time.monotonic() + START_LIMIT
            while time.monotonic() < give_up:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{SMALL}", timeout=1).close()
                    break
                time.sleep(0.01)
            yield process, port


def _in_rotation(admin: int, port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/-/backends", timeout=5) as page:
        document = json.load(page)
    return _used(document, f"127.0.0.1:{port}")


def _used(document: object, address: str) -> bool:
    """Look through the page for the back end's own entry."""
    if isinstance(document, dict):
        if address in (document.get("address"), document.get("back_end")):
            return bool(document.get("used", document.get("in_rotation")))
        return any(_used(value, address) for value in document.values())
    return isinstance(document, list) and any(_used(value, address) for value in document)


def _resident(log: Path) -> float:
    """The resident octets of a proxy's workers."""
    master = int((log.parent / "pid").read_text())
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    status = [Path(f"/proc/{child}/status").read_text() for child in children]
    return sum(float(re.findall(r"VmRSS:\s+(\d+) kB", text)[0]) * 1024 for text in status)
