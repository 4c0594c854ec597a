from __future__ import annotations

import pytest

from arke_proxy.retry import may_go_again


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"])
def test_what_means_the_same_twice_may_go_again_while_it_is_whole(method: bytes) -> None:
    assert may_go_again(method, body_at_hand=True)
    assert not may_go_again(method, body_at_hand=False)


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"PURGE", b"LOCK"])
def test_anything_else_may_not(method: bytes) -> None:
    assert not may_go_again(method, body_at_hand=True)
