"""Fixtures for all tests, and the logs of processes in the report of a test that fails."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab import Lab, LabUnavailable
from support import processes
from support.relays import Relay, Relays, network

_ROOT = Path(__file__).parent.parent
_LOG_START = pytest.StashKey[dict[int, int]]()
"""Where the log of each running process was, by machine pid, when the test began."""
_LOG_CHARACTERS = 4000
_LONGEST = (
    "network/test_soak_pauses_and_clocks.py",
    "network/test_soak_faults.py",
    "acceptance/proxy/test_reload.py",
    "acceptance/proxy/test_admin_pages.py",
    "acceptance/proxy/test_start_and_stop.py",
    "acceptance/relay/test_admission_end.py",
    "acceptance/proxy/test_strictness.py",
)
"""Files that take from 30 s to two minutes. They start first: a worker runs a whole file."""


def pytest_sessionstart() -> None:
    """Refuse to test compiled modules that are older than their sources: Python prefers them."""
    packages = [_ROOT / name for name in ("sdk", "relay", "proxy")]
    compiled = [path.stat().st_mtime for root in packages for path in root.rglob("*.so")]
    written = [path.stat().st_mtime for root in packages for path in root.rglob("*.py")]
    if compiled and max(written) > min(compiled):
        pytest.exit(
            "the compiled modules are older than the sources: `make compiled` or `make pure`"
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {_ROOT / "tests" / name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(_LONGEST)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[_LOG_START] = {
        process.machine_pid: process.written for process in processes.started if not process.closed
    }


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what each process logged since a failed test began."""
    report = yield
    if report.failed:
        before = item.stash.get(_LOG_START, {})
        for process in processes.started:
            if not process.closed:
                log = process.log_from(before.get(process.machine_pid, 0))
                report.sections.append((f"log of {process.name}", log[-_LOG_CHARACTERS:]))
    return report


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Three hosts on a switch, or n with `@pytest.mark.parametrize("lab", [n], indirect=True)`."""
    with ExitStack() as stack:
        try:
            lab = stack.enter_context(Lab(hosts=getattr(request, "param", 3)))
        except LabUnavailable as reason:
            if os.environ.get("CI"):
                pytest.fail(f"CI needs the network lab: {reason}", pytrace=False)
            pytest.skip(f"no network lab on this machine: {reason}")
        yield lab
        # pytest shows this only for a test that failed.
        for process in lab.processes:
            sys.stdout.write(f"--- {process.name}\n{process.tail()}\n")


@pytest.fixture
def relays(tmp_path: Path) -> Iterator[Relays]:
    """Relays of one network on loopback addresses, for tests that stop, fill or configure them."""
    with network(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def module_relays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relays]:
    """Relays that all tests of a module share."""
    with network(tmp_path_factory.mktemp("relays")) as made:
        yield made


@pytest.fixture(scope="module")
def module_relay(module_relays: Relays) -> Relay:
    """A relay that all tests of a module share."""
    return module_relays.start()


@pytest.fixture(scope="module")
def module_pair(module_relays: Relays) -> tuple[Relay, Relay]:
    """Two linked relays that all tests of a module share."""
    return module_relays.start_pair()


@pytest.fixture
def raised_descriptor_limit() -> Iterator[None]:
    """Raise the soft limit of file descriptors to the hard limit, for thousands of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
