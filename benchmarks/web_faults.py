"""Measure the effect of 10,000 idle clients, and of a backend that dies under load."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import BenchError, Figures
from benchmarks.processes import module_command, running
from benchmarks.relays import free_ports
from benchmarks.web_idle_clients import COUNT
from benchmarks.web_loads import CONNECTIONS, at_rate
from benchmarks.web_proxies import LISTENING, wait_for_line
from benchmarks.web_servers import COMMAND_TIMEOUT, SMALL, backend, binary, wait_for_port

_RATE = 2_000.0  # requests a second, of the active clients
_GLANCE = 0.001  # seconds between two polls of the backends page
_ALL_COME = 60.0  # seconds until ten thousand clients have their answer
_NOT_2XX = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")


def with_idle_clients(seconds: float) -> Figures:
    """Measure latency alone, then with ten thousand idle connections."""
    with (
        tempfile.TemporaryDirectory() as folder,
        backend() as port,
        _proxy([port]) as proxy,
    ):
        url = f"http://127.0.0.1:{proxy.port}{SMALL}"
        at_rate(url, _RATE, 1.0)  # warm up: the first requests open connections
        alone = at_rate(url, _RATE, seconds)["p99_us"]
        before = proxy.resident()
        log = Path(folder, "idlers")
        with running(module_command("benchmarks.web_idle_clients", str(proxy.port), SMALL), log):
            wait_for_line(log, re.compile("ready"), _ALL_COME)
            each = (proxy.resident() - before) / COUNT
            latency_under_load = at_rate(url, _RATE, seconds)["p99_us"]
    return {
        "each": each,
        "alone": alone,
        "beside": latency_under_load,
        "times": latency_under_load / alone,
    }


def backend_killed_under_load(seconds: float) -> Figures:
    """Kill one of three backends under load from 64 connections."""
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(backend()) for _ in range(2)]
        victim, port = stack.enter_context(_killable_backend())
        proxy = stack.enter_context(_proxy([*ports, port]))
        url = f"http://127.0.0.1:{proxy.port}{SMALL}"
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(2, round(seconds))}s", url]
        load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        time.sleep(seconds / 3)
        victim.kill()
        killed = time.monotonic()
        while proxy.uses(port):
            if time.monotonic() - killed > COMMAND_TIMEOUT:
                raise BenchError("the dead backend was not ejected")
            time.sleep(_GLANCE)
        out = time.monotonic() - killed
        text, _ = load.communicate(timeout=seconds + COMMAND_TIMEOUT)
    return {"failed": float(_failed(text)), "out": out * 1e6}


def _failed(text: str) -> int:
    """Sum the errors that wrk reports."""
    counts = [match for found in _ERRORS.findall(text) for match in found]
    return sum(map(int, [*counts, *_NOT_2XX.findall(text)]))


class _Proxy(NamedTuple):
    pid: int  # of the master
    port: int
    admin: int

    def resident(self) -> float:
        """Return the resident bytes of its workers."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        status = [Path(f"/proc/{child}/status").read_text() for child in children]
        return sum(float(re.findall(r"VmRSS:\s+(\d+) kB", text)[0]) * 1024 for text in status)

    def uses(self, port: int) -> bool:
        """Whether a backend is in use."""
        url = f"http://127.0.0.1:{self.admin}/-/backends"
        with urllib.request.urlopen(url, timeout=COMMAND_TIMEOUT) as page:
            workers = json.load(page)["workers"]
        address = f"127.0.0.1:{port}"
        return any(
            one["in_use"]
            for worker in workers
            for one in worker["backends"]
            if one["address"] == address
        )


@contextlib.contextmanager
def _proxy(backends: Sequence[int]) -> Iterator[_Proxy]:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "proxy")
        admin = free_ports("127.0.0.1", 1)
        command = module_command("arke_proxy.main", "-choose", "static", "-listen", "127.0.0.1:0")
        command += ["-admin", f"127.0.0.1:{admin}", "-max-clients", "15000"]
        for port in backends:
            command += ["-backend", f"127.0.0.1:{port}"]
        with running(command, log) as process:
            yield _Proxy(process.pid, int(wait_for_line(log, LISTENING)[1]), admin)


@contextlib.contextmanager
def _killable_backend() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start nginx as a single process, so that killing it takes effect at once."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_ports("127.0.0.1", 1)
        config = Path(folder, "nginx.conf")
        config.write_text(f"""
            daemon off; master_process off; pid {folder}/pid; error_log stderr crit;
            events {{ worker_connections 1000; }}
            http {{
                access_log off;
                server {{ listen 127.0.0.1:{port}; location / {{ return 200 "hello, you!\\n"; }} }}
            }}
        """)
        command = [binary("nginx"), "-e", "stderr", "-c", str(config)]
        with running(command, Path(folder, "log")) as process:
            wait_for_port(port, "nginx")
            yield process, port
