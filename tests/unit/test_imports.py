"""Who may import whom: the layers of the house, read from the code itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import arke
from support.programs import CHECKOUT

OURS = ("arke", "arke_relay", "arke_proxy")
ASIDE = {"arke.program", "arke.keygen"}  # one parser for all commands; one way to make a key
OUTSIDE_WORLD = {"asyncio", "socket", "time", "random", "secrets", "zmq", "os", "threading"}


def imports(file: Path) -> Iterator[str]:
    """The dotted names that a file imports; `from a import b` is `a.b` and `a`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(folder: str) -> list[Path]:
    found = sorted((CHECKOUT / folder).rglob("*.py"))
    assert found
    return found


def of_ours(file: Path) -> set[str]:
    return {name for name in imports(file) if name.split(".")[0] in OURS}


@pytest.mark.parametrize("file", files("sdk/arke"), ids=str)
def test_the_sdk_imports_nothing_of_ours(file: Path) -> None:
    assert all(name.split(".")[0] == "arke" for name in of_ours(file))


@pytest.mark.parametrize("file", files("relay/arke_relay"), ids=str)
def test_the_relay_imports_only_the_wire_of_the_sdk(file: Path) -> None:
    for name in of_ours(file):
        package = ".".join(name.split(".")[:2])
        assert (
            name.startswith("arke_relay")
            or package in {"arke.wire", *ASIDE}
            or name == "arke.__version__"
        ), name


@pytest.mark.parametrize("file", files("relay/arke_relay/core"), ids=str)
def test_the_core_knows_no_outside_world(file: Path) -> None:
    assert not {name.split(".")[0] for name in imports(file)} & OUTSIDE_WORLD


@pytest.mark.parametrize("file", files("proxy/arke_proxy") + files("demo-httpserver"), ids=str)
def test_the_proxy_and_the_demo_are_ordinary_users(file: Path) -> None:
    public = {f"arke.{name}" for name in arke.__all__}
    for name in of_ours(file):
        assert (
            name == "arke" or name.startswith(("arke_proxy", "arke.program")) or name in public
        ), name
