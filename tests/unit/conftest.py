"""Unit tests: no time limits for generated tests, and a log whose output a test reads."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from arke.program.logging import Log, configure

# A busy machine is not a failure.
settings.register_profile("arke", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("arke")


@pytest.fixture
def log_output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(log_output: io.StringIO) -> Iterator[Log]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield configure("arke_relay", stream=log_output)
    root.handlers[:], root.level = before
