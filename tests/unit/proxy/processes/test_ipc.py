from __future__ import annotations

import pytest

from arke_proxy.observability.aggregate import Aggregate
from arke_proxy.processes.ipc import LineDecoder, encode


def test_ipc_messages_are_decoded_byte_by_byte() -> None:
    decoder, messages = LineDecoder(), []
    for byte in encode({"ready": True}) + encode({"report": {"a": "x\ny"}}):
        messages += decoder.feed(bytes((byte,)))
    assert messages == [{"ready": True}, {"report": {"a": "x\ny"}}]


@pytest.mark.parametrize("data", [b"nonsense\n", b"[1]\n", b"\xff\n"])
def test_invalid_ipc_message_raises(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        LineDecoder().feed(data)


def report(requests: float, connections: float) -> dict[str, object]:
    return {
        "counters": {"requests": requests},
        "gauges": {"connections": connections},
        "backends": [],
    }


def test_counters_of_exited_worker_stay_in_totals() -> None:
    aggregate = Aggregate()
    aggregate.report(1, report(10, 3))
    aggregate.report(2, report(5, 2))
    aggregate.report(1, report(11, 4))
    assert aggregate.totals()["counters"] == {"requests": 16}
    assert aggregate.totals()["gauges"] == {"connections": 6}
    aggregate.worker_exited(1)
    aggregate.worker_exited(3)  # a worker that never reported
    assert aggregate.totals() == {
        "counters": {"requests": 16},
        "gauges": {"connections": 2},
        "backends": {"2": []},
    }
