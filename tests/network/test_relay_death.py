from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lab import Lab
from support.lab_relays import start_relays, wait_for_members, wait_for_peers

LIMIT = 60.0
ACTORS = Path(__file__).with_name("actors")


@pytest.mark.parametrize(("signal", "seconds"), [("SIGKILL", 1.0), ("SIGSTOP", 3.0)])
def test_requests_to_a_dead_relay_fail_or_are_retried_in_time(
    lab: Lab, tmp_path: Path, signal: str, seconds: float
) -> None:
    first, second, third = lab.hosts
    relays = start_relays(lab.hosts, tmp_path / "id_rsa")
    for host in second, third:
        host.start([sys.executable, ACTORS / "holding_member.py"])
    wait_for_members(first, 2)

    words = [sys.executable, ACTORS / "callers.py", relays[2].pid, signal, seconds]
    outcomes = json.loads(first.run([str(word) for word in words], limit=LIMIT).stdout)

    # Each member held some requests; idempotent ones were retried at the remaining member.
    assert outcomes["idempotent"] == {second.address: 32}
    assert set(outcomes["once"]) == {second.address, "MemberLost"}
    assert sum(outcomes["once"].values()) == 32

    if signal == "SIGSTOP":
        relays[2].cont()
        wait_for_peers(first, [second, third])
        wait_for_members(first, 2)
