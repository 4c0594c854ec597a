from __future__ import annotations

import pytest

from arke_proxy.retry import may_go_again


@pytest.mark.parametrize(
    ("method", "sent", "body_at_hand", "told", "again"),
    [
        (b"GET", True, True, False, True),
        (b"PUT", True, True, False, True),
        (b"PUT", True, False, False, False),
        (b"GET", True, True, True, False),
        (b"POST", True, True, False, False),
        (b"PATCH", True, True, False, False),
        (b"POST", False, True, False, True),
        (b"POST", False, False, False, False),
        (b"PURGE", True, True, False, False),
    ],
)
def test_what_may_be_sent_twice(
    method: bytes, sent: bool, body_at_hand: bool, told: bool, again: bool
) -> None:
    assert may_go_again(method, sent=sent, body_at_hand=body_at_hand, told=told) is again
