"""Requirements of a test: if one is missing, the test fails in CI and is skipped elsewhere."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def require_tool(name: str, package: str) -> str:
    """Return the path of a program. Fail or skip the test if it is not installed."""
    return shutil.which(name) or skip_or_fail(f"`{name}` is missing: install {package}")


def require_root(why: str) -> None:
    """Fail or skip the test unless it runs as root."""
    if os.geteuid() != 0:
        skip_or_fail(f"only root can {why}")


def skip_or_fail(reason: str) -> NoReturn:
    """Fail the test in CI; skip it elsewhere."""
    if os.environ.get("CI"):
        pytest.fail(f"CI needs it: {reason}", pytrace=False)
    pytest.skip(reason)
