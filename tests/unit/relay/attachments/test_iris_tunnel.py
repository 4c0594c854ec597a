"""What is lent to the other end of an Iris tunnel is paid back by the program's next grants."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from arke.wire.limits import CHUNK, MIN_WINDOW
from arke_relay.attachments.iris.tunnel import IrisTunnel

ALLOWANCE = 10_000


@given(st.lists(st.integers(1, 5 * CHUNK), min_size=1, max_size=10))
def test_after_every_message_that_was_read_there_is_as_much_credit_as_the_program_gave(
    sizes: list[int],
) -> None:
    tunnel = IrisTunnel(1, 1, MIN_WINDOW, 0)
    tunnel.granted(ALLOWANCE)
    credit = tunnel.grant()
    for size in sizes:
        sent = 0
        while sent < size:
            piece = min(size - sent, CHUNK // 2)
            while credit < piece and (more := tunnel.grant()):
                credit += more
            piece = min(piece, credit)
            assert piece, "it stalls"
            tunnel.carry(0 if sent else size, piece, piece)
            credit -= piece
            sent += piece
            credit += tunnel.grant()
        tunnel.granted(size)
        credit += tunnel.grant()
        # What is lent comes in halves of a window; what is left of the last is owed and paid.
        assert credit <= ALLOWANCE + MIN_WINDOW
    assert tunnel._ungranted + tunnel._granted - tunnel._debt == ALLOWANCE
