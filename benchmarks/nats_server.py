"""Start a nats-server (Debian's, without JetStream) on a free port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.measure import BenchError
from benchmarks.processes import run_to_end, running

COMMAND_TIMEOUT = 10.0
_SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin"


def prepare() -> dict[str, str]:
    """Return NATS' versions; raise `BenchError`, with the fix, if a part is not installed."""
    binary = _binary()
    if binary is None:
        raise BenchError("nats-server is missing: apt-get install nats-server")
    try:
        client = metadata.version("nats-py")
    except metadata.PackageNotFoundError:
        raise BenchError("nats-py is missing: `make bench` installs it") from None
    answer = run_to_end([binary, "--version"], COMMAND_TIMEOUT)
    return {"nats-server": answer.rpartition("v")[2].strip(), "nats-py": client}


@contextlib.contextmanager
def nats_server() -> Iterator[int]:
    """Run a server for the duration of the block; the value is its port."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        config, log = folder / "nats.conf", folder / "log"
        config.write_text(f'listen: "127.0.0.1:-1"\nports_file_dir: "{folder}"\n')
        with running([_binary() or "nats-server", "-c", str(config)], log) as process:
            yield _port(process, folder)


def _port(process: subprocess.Popen[bytes], folder: Path) -> int:
    give_up = time.monotonic() + COMMAND_TIMEOUT
    while time.monotonic() < give_up and process.poll() is None:
        for ports in folder.glob("*.ports"):
            with contextlib.suppress(json.JSONDecodeError):  # still being written
                return urlsplit(json.loads(ports.read_text())["nats"][0]).port or 0
        time.sleep(0.01)
    raise BenchError("nats-server did not start")


def _binary() -> str | None:
    # Debian installs it in a folder that is not in a user's PATH.
    return shutil.which("nats-server") or shutil.which("nats-server", path=_SYSTEM_FOLDERS)
