"""A proxy for all tests of a module, and proxies of a test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.deployment import Deployment, new_deployment
from support.proxy_harness import ProxyHarness, proxy_harness


@pytest.fixture(scope="module")
def module_harness(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxyHarness]:
    """A proxy, its relay and its cluster; the proxy gets the module's FLAGS, if it has any."""
    flags = getattr(request.module, "FLAGS", ())
    with proxy_harness(tmp_path_factory.mktemp("proxy"), *flags) as harness:
        yield harness


@pytest.fixture
def harness(module_harness: ProxyHarness) -> Iterator[ProxyHarness]:
    """The module's harness; its backends and connections are closed after each test."""
    yield module_harness
    module_harness.clean_up()


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    """Proxies, backends and members that are stopped after the test."""
    with new_deployment() as made:
        yield made
