"""Fixtures that several proxy tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.observed_proxy import StartProxy, observed_proxies


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartProxy]:
    """Start proxies whose log and metrics a test reads."""
    with observed_proxies(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all tests of a module share."""
    return tmp_path_factory.mktemp("module")
