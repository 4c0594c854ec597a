"""The mesh under load that the soak tests share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab
from soak.campaign import Campaign
from soak.clocks import shared_memory_cleanup
from support import needs

SEED = 4


@pytest.fixture
def _faketime_cleanup() -> Iterator[None]:
    with shared_memory_cleanup():
        yield


@pytest.fixture
def campaign(_faketime_cleanup: None, lab: Lab, tmp_path: Path) -> Iterator[Campaign]:
    """A mesh under load; the fixture fails the test on any finding."""
    needs.require_tool("faketime", "faketime")
    campaign = Campaign(lab, tmp_path, SEED, print)
    campaign.begin()
    yield campaign
    campaign.end()
    sys.stdout.write(campaign.summary())
    assert not campaign.findings.texts
    assert campaign.counts().answered.total() > 0
