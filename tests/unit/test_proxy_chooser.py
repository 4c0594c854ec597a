from __future__ import annotations

import pytest

from arke_proxy.choosing.address import Address
from arke_proxy.choosing.static import Static
from arke_proxy.errors import AllTried, NoBackEnd

ONE, TWO, THREE = (Address("127.0.0.1", port) for port in (1, 2, 3))


def test_back_ends_take_turns() -> None:
    chooser = Static([ONE, TWO, THREE])
    assert [chooser.ready(()) for _ in range(4)] == [ONE, TWO, THREE, ONE]


async def test_what_was_tried_is_left_out() -> None:
    chooser = Static([ONE, TWO])
    assert [await chooser.choose({ONE}) for _ in range(3)] == [TWO] * 3
    with pytest.raises(AllTried):
        chooser.ready({ONE, TWO})


def test_there_may_be_none() -> None:
    with pytest.raises(NoBackEnd):
        Static([]).ready(())
