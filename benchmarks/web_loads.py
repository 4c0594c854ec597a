"""HTTP loads: closed loop with wrk, and a fixed rate with h2load."""

from __future__ import annotations

import re
import statistics
import tempfile
from pathlib import Path

from benchmarks.measure import BenchError, Figures
from benchmarks.processes import run_to_end

MARGIN = 30.0  # seconds beyond the measured time
CONNECTIONS = 64
_RATE = re.compile(r"Requests/sec:\s+([0-9.]+)")
_TRANSFER = re.compile(r"([0-9]+) requests in ([0-9.]+)s, ([0-9.]+)(KB|MB|GB) read")
_BAD = re.compile(r"(Socket errors:|Non-2xx).*")
_SIZES = {"KB": 1024.0, "MB": 1024.0**2, "GB": 1024.0**3}


def closed_loop(url: str, seconds: float) -> Figures:
    """Run a closed loop on each connection; return requests and bytes a second."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", url]
    text = run_to_end(command, seconds + MARGIN)
    if bad := _BAD.search(text):
        raise BenchError(f"{url}: {bad[0]}")
    rate, read = _RATE.search(text), _TRANSFER.search(text)
    if not rate or not read:
        raise BenchError(f"cannot parse the output of wrk: {text[-200:]}")
    throughput = float(read[3]) * _SIZES[read[4]] / float(read[2])
    return {"rate": float(rate[1]), "bytes": throughput}


def at_rate(url: str, rate: float, seconds: float) -> Figures:
    """Send requests at a fixed rate over all connections; return latency percentiles in µs."""
    each = max(1, round(rate / CONNECTIONS))
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        command = ["h2load", "--h1", "-t1", f"-c{CONNECTIONS}", f"--rps={each}"]
        command += [f"-D{max(1, round(seconds))}", f"--log-file={log}", url]
        run_to_end(command, seconds + MARGIN)
        lines = [line.split() for line in log.read_text().splitlines()]
    if not lines or any(status != "200" for _, status, _ in lines):
        raise BenchError(f"{url}: some responses at {rate:.0f} requests/s were not 200")
    cuts = statistics.quantiles([float(took) for _, _, took in lines], n=100)
    return {"p50_us": cuts[49], "p99_us": cuts[98], "target_rate": float(each * CONNECTIONS)}
