"""The lowest allowed version of a dependency has no published advisory."""

from __future__ import annotations

import re
import tomllib

import pytest

from support.programs import CHECKOUT

FIRST_FIXED = {
    "aiohttp": "3.14.2",
    "cryptography": "48.0.1",
    "h2": "4.4.1",
    "msgpack": "1.2.1",
    "zeroconf": "0.150",
}
"""The first version without a known advisory, as of November 2026."""


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def floors() -> dict[str, str]:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    found = [each.partition(">=") for each in [*project["dependencies"], *extras]]
    return {name: floor for name, _, floor in found}


@pytest.mark.parametrize("package", FIRST_FIXED)
def test_lower_bound_excludes_versions_with_advisories(package: str) -> None:
    assert version(floors()[package]) >= version(FIRST_FIXED[package])


def test_locked_versions_satisfy_the_lower_bounds() -> None:
    lock = (CHECKOUT / "requirements.lock").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([a-z0-9-]+)==([0-9.]+)", lock, re.MULTILINE))
    for package, floor in floors().items():
        assert version(locked[package]) >= version(floor), package
