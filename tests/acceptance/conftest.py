"""One proxy for all tests of a module that names no other; each test tidies up behind itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.http_rig import Rig, standing


@pytest.fixture(scope="module")
def standing_rig(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """A rig whose proxy gets the module's FLAGS, if it has any."""
    flags = getattr(request.module, "FLAGS", ())
    with standing(tmp_path_factory.mktemp("proxy"), *flags) as rig:
        yield rig


@pytest.fixture
def rig(standing_rig: Rig) -> Iterator[Rig]:
    yield standing_rig
    standing_rig.clean_up()
