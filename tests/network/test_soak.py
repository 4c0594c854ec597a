"""A short soak test with each kind of fault, and the faults that must not fail any request."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from lab import Lab
from soak.campaign import Campaign
from soak.clocks import tidied
from soak.schedule import HOUR, Kind
from support import needs
from support.lab_relays import status
from support.programs import program

SEED = 4
LIMIT = 20.0
PAUSE = 5.0  # seconds; half of a request's timeout


@pytest.fixture
def _faketime_cleanup() -> Iterator[None]:
    with tidied():
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
    assert campaign.tally().answered.total() > 0


def test_every_kind_of_fault_ends_in_replies_or_typed_errors(campaign: Campaign) -> None:
    campaign.storm(Random(SEED), 22)
    assert all(campaign.inflicted[kind] for kind in Kind)


def test_rolling_restart_of_all_relays_fails_no_request(campaign: Campaign) -> None:
    campaign.roll([0, 1, 2])
    assert "tunnel read TunnelClosed" in campaign.tally().failed  # proves that tunnels were open


def test_paused_program_fails_no_request_before_its_deadline(campaign: Campaign) -> None:
    member = campaign.stage.process(campaign.stage.members, 1)
    caller = campaign.stage.process(campaign.stage.callers, 2)
    with campaign.nothing_fails("a paused program"):
        member.stop()
        caller.stop()
        before = campaign.stage.report(0)["answered"]
        campaign.wait(PAUSE)
        after = campaign.stage.report(0)["answered"]
        member.cont()
        caller.cont()
    assert after["once"] > before["once"]


def test_wall_clock_jumps_of_an_hour_fail_no_request(campaign: Campaign) -> None:
    relay = campaign.stage.process(campaign.stage.relays, 0)
    host = campaign.stage.hosts[0]
    campaign.set_clock(0, HOUR)
    server = host.start([*program("arke"), "serve", "other", "--echo"])
    line = relay.wait_for_line("program registered .*cluster=other", LIMIT).string
    server.terminate()
    assert server.wait(LIMIT) == 0
    # Only the relay's wall clock jumps; its monotonic clock does not.
    ahead = (datetime.fromisoformat(line.split()[0]) - datetime.now(UTC)).total_seconds()
    assert HOUR - 120 < ahead < HOUR + 120
    assert status(host)["node"]["uptime_s"] < HOUR / 2

    campaign.jump_clocks()
