"""Short soak tests: each kind of fault, and a rolling restart that must not fail any request."""

from __future__ import annotations

from random import Random

from soak.campaign import Campaign
from soak.schedule import Kind

SEED = 4


def test_every_kind_of_fault_ends_in_replies_or_typed_errors(campaign: Campaign) -> None:
    campaign.storm(Random(SEED), 22)
    assert all(campaign.fault_counts[kind] for kind in Kind)


def test_rolling_restart_of_all_relays_fails_no_request(campaign: Campaign) -> None:
    campaign.roll([0, 1, 2])
    assert "tunnel read TunnelClosed" in campaign.counts().failed  # proves that tunnels were open
