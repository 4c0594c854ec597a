"""Start the `proxy` command; read its TLS port, worker pids and memory."""

from __future__ import annotations

import os
from pathlib import Path

from lab import Process
from support.processes import start_process
from support.programs import program
from support.relays import Relay
from support.waiting import LIMIT


def tls_port(proxy: Process) -> int:
    """Return the port that a proxy chose for -tls-listen 127.0.0.1:0."""
    match = proxy.wait_for_line(r" tls=127\.0\.0\.1:(\d+)", LIMIT)
    return int(match[1])


def worker_pids(proxy: Process) -> list[int]:
    """Return the pids of a proxy's workers, oldest first."""
    pid = proxy.machine_pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in children.split()]


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE")


def start_cluster_proxy(relay: Relay, cluster: str, *flags: str) -> tuple[Process, int]:
    """Start a proxy for a cluster; return the process and its port when it listens."""
    return start_proxy("-cluster", cluster, "-port", str(relay.port), *flags)


def start_proxy(
    *flags: str, descriptors: int | None = None, error_details: bool = True
) -> tuple[Process, int]:
    """Start a proxy with these flags; return the process and its port when it listens.

    `descriptors` limits the file descriptors of each process. `error_details`: error pages say
    which backend failed and why, so that tests need not look into the log.
    """
    words = [*program("proxy"), "-listen", "127.0.0.1:0", *flags]
    if error_details:
        words.append("-error-details")
    if descriptors:
        words = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *words]
    process = start_process("proxy", words)
    match = process.wait_for_line(r"proxy listening address=127\.0\.0\.1:(\d+) ", LIMIT)
    return process, int(match[1])
