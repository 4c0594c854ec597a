from __future__ import annotations

import pytest

from arke_proxy.observability.aggregate import Aggregate
from arke_proxy.processes.ipc import LineDecoder, line


def test_messages_arrive_octet_by_octet() -> None:
    lines, messages = LineDecoder(), []
    for octet in line({"ready": True}) + line({"report": {"a": "x\ny"}}):
        messages += lines.feed(bytes((octet,)))
    assert messages == [{"ready": True}, {"report": {"a": "x\ny"}}]


@pytest.mark.parametrize("data", [b"nonsense\n", b"[1]\n", b"\xff\n"])
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        LineDecoder().feed(data)


def report(requests: float, connections: float) -> dict[str, object]:
    return {
        "counters": {"requests": requests},
        "gauges": {"connections": connections},
        "backends": [],
    }


def test_what_a_worker_counted_stays_when_it_leaves() -> None:
    totals = Aggregate()
    totals.report(1, report(10, 3))
    totals.report(2, report(5, 2))
    totals.report(1, report(11, 4))
    assert totals.sum()["counters"] == {"requests": 16}
    assert totals.sum()["gauges"] == {"connections": 6}
    totals.left(1)
    totals.left(3)  # it never said anything
    assert totals.sum() == {
        "counters": {"requests": 16},
        "gauges": {"connections": 2},
        "backends": {"2": []},
    }
