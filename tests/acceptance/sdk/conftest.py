"""One relay, or two linked relays, which the tests of a module share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from support.relay_status import wait_until_unused
from support.relays import Relay, network


@pytest.fixture(scope="module", params=[1, 2], ids=["one relay", "two relays"])
def module_nodes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Relay, Relay]]:
    with network(tmp_path_factory.mktemp("relays")) as relays:
        yield relays.start_pair() if request.param == 2 else (relays.start(),) * 2


@pytest.fixture
def nodes(module_nodes: tuple[Relay, Relay]) -> Iterator[tuple[Relay, Relay]]:
    """The relay of the caller and that of the service; no program of an earlier test is left."""
    yield module_nodes
    asyncio.run(wait_until_unused(*module_nodes))


@pytest.fixture
def ports(nodes: tuple[Relay, Relay]) -> tuple[int, int]:
    """The program ports of the caller's relay and of the service's."""
    return nodes[0].port, nodes[1].port
