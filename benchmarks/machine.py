"""Describe the machine and the versions, without anything that identifies the machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from arke.compiled import is_compiled

_DISTRIBUTIONS = ("arke", "uvloop", "pyzmq", "msgpack")


def describe() -> dict[str, str]:
    """Return CPU, kernel and Python, and the versions of Arke's dependencies."""
    cpu = _cpu_model(Path("/proc/cpuinfo").read_text().splitlines())
    return {
        "cpu": f"{cpu}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "compiled": "yes" if is_compiled() else "no",
    } | {name: _version(name) for name in _DISTRIBUTIONS}


def _cpu_model(lines: Iterable[str]) -> str:
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "from the checkout"
