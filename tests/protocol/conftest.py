"""Relays that the tests of one module share, and pairs of Iris and native programs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.protocol_pairs import PAIRS, ProtocolPair
from support.relays import Relay, network


@pytest.fixture(scope="module", params=[1, 2], ids=["one relay", "two relays"])
def nodes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Relay, Relay]]:
    with network(tmp_path_factory.mktemp("relays")) as relays:
        yield relays.start_pair() if request.param == 2 else (relays.start(),) * 2


@pytest.fixture(scope="module")
def node(module_relay: Relay) -> Relay:
    return module_relay


@pytest.fixture(params=PAIRS, ids=" calls ".join)
def ends(request: pytest.FixtureRequest, nodes: tuple[Relay, Relay]) -> ProtocolPair:
    caller, member = request.param
    return ProtocolPair(caller, member, *nodes)
