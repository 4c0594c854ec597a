"""Short soak tests: paused programs and jumping clocks must not fail any request."""

from __future__ import annotations

from datetime import UTC, datetime

from soak.campaign import Campaign
from soak.schedule import HOUR
from support.lab_relays import status
from support.programs import program

LIMIT = 20.0
PAUSE = 5.0  # seconds; half of a request's timeout


def test_paused_program_fails_no_request_before_its_deadline(campaign: Campaign) -> None:
    member = campaign.testbed.process(campaign.testbed.members, 1)
    caller = campaign.testbed.process(campaign.testbed.callers, 2)
    with campaign.expect_no_failures("a paused program"):
        member.stop()
        caller.stop()
        before = campaign.testbed.report(0)["answered"]
        campaign.wait(PAUSE)
        after = campaign.testbed.report(0)["answered"]
        member.cont()
        caller.cont()
    assert after["once"] > before["once"]


def test_wall_clock_jumps_of_an_hour_fail_no_request(campaign: Campaign) -> None:
    relay = campaign.testbed.process(campaign.testbed.relays, 0)
    host = campaign.testbed.hosts[0]
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
