"""Rules for names and sizes in the packages, checked in the source text."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from support.programs import CHECKOUT
from support.source_tree import classes, files

MAX_POSITIONAL = 7
MAX_SOURCE_LINES = 450
MAX_TEST_LINES = 600

SHARED_NAMES: dict[str, str] = {
    "Mesh": "the asyncio API and the blocking API have the same names",
    "Tunnel": "the asyncio API and the blocking API have the same names",
}
"""Class names that stand for one idea in several modules, each with the reason."""


def test_class_names_are_unique() -> None:
    places = defaultdict(list)
    for module, node in classes():
        places[node.name.lstrip("_")].append(module)
    shared = {
        name: where for name, where in places.items() if len(where) > 1 and name not in SHARED_NAMES
    }
    assert not shared, report(shared)


def test_constructors_have_at_most_seven_positional_arguments() -> None:
    long = {}
    for module, node in classes():
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                count = len(method.args.posonlyargs) + len(method.args.args) - 1  # but self
                if count > MAX_POSITIONAL:
                    long[f"{module}.{node.name}"] = count
    assert not long, report(long)


def test_source_files_have_at_most_450_lines() -> None:
    sources = [
        file for folder in ("sdk", "relay", "proxy", "demo-httpserver") for file in files(folder)
    ]
    long = longer_than(MAX_SOURCE_LINES, [*sources, CHECKOUT / "hatch_build.py"])
    assert not long, report(long)


def test_test_files_have_at_most_600_lines() -> None:
    long = longer_than(MAX_TEST_LINES, files("tests"))
    assert not long, report(long)


def longer_than(limit: int, checked: list[Path]) -> dict[str, int]:
    lines = {
        str(file.relative_to(CHECKOUT)): len(file.read_text(encoding="utf-8").splitlines())
        for file in checked
    }
    return {name: count for name, count in lines.items() if count > limit}


def report(found: dict[str, object] | dict[str, int] | dict[str, list[str]]) -> str:
    return f"{len(found)}:\n" + "\n".join(
        f"{name}: {value}" for name, value in sorted(found.items())
    )
