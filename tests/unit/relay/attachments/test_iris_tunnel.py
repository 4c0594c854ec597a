"""Credit granted in advance to the other end of an Iris tunnel is repaid by later allowances."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from arke.wire.limits import CHUNK, MIN_WINDOW
from arke_relay.attachments.iris.tunnel import IrisTunnelEnd

ALLOWANCE = 10_000


@given(st.lists(st.integers(1, 5 * CHUNK), min_size=1, max_size=10))
def test_credit_returns_to_the_allowance_after_each_message(sizes: list[int]) -> None:
    tunnel = IrisTunnelEnd(1, 1, MIN_WINDOW, 0)
    tunnel.allowed(ALLOWANCE)
    credit = tunnel.take_grant()
    for size in sizes:
        sent = 0
        while sent < size:
            part = min(size - sent, CHUNK // 2)
            while credit < part and (more := tunnel.take_grant()):
                credit += more
            part = min(part, credit)
            assert part, "the tunnel stalls"
            tunnel.forward(0 if sent else size, part, part)
            credit -= part
            sent += part
            credit += tunnel.take_grant()
        tunnel.allowed(size)
        credit += tunnel.take_grant()
        # Advances are half a window each; the rest of the last one may be outstanding.
        assert credit <= ALLOWANCE + MIN_WINDOW
    assert tunnel._ungranted + tunnel._granted - tunnel._advance == ALLOWANCE
