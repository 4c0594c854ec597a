"""Read the source code for the documentation's tests: modules, classes, functions, constants."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

from support.programs import CHECKOUT

_N = TypeVar("_N", bound=ast.AST)

ROOTS = tuple(CHECKOUT / name for name in ("sdk", "relay", "proxy"))


@cache
def trees() -> dict[Path, ast.Module]:
    """Return the syntax tree of every module of the three packages."""
    files = [file for root in ROOTS for file in sorted(root.rglob("*.py"))]
    return {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}


def nodes(kind: type[_N], *folders: str) -> Iterator[tuple[Path, _N]]:
    """Return the nodes of one kind, in all packages or below some folders of the checkout."""
    below = [CHECKOUT / folder for folder in folders or ("",)]
    for file, tree in trees().items():
        if any(file.is_relative_to(folder) for folder in below):
            for node in ast.walk(tree):
                if isinstance(node, kind):
                    yield file, node


@cache
def classes() -> dict[str, set[str]]:
    """Return every class with the names that its body defines, and those of its bases."""
    own: dict[str, set[str]] = {}
    bases: dict[str, list[str]] = {}
    for _, node in nodes(ast.ClassDef):
        names = own.setdefault(node.name, set())
        for inner in ast.walk(node):
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(inner.name)
            elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                names.add(inner.id)
            elif isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
                names.add(inner.attr)
        bases.setdefault(node.name, []).extend(
            base.id for base in node.bases if isinstance(base, ast.Name)
        )
    return {
        name: names.union(*(own.get(base, set()) for base in bases[name]))
        for name, names in own.items()
    }


@cache
def functions() -> set[str]:
    """Return the name of every function and method."""
    found = {node.name for _, node in nodes(ast.FunctionDef)}
    return found | {node.name for _, node in nodes(ast.AsyncFunctionDef)}


def path_exists(path: str) -> bool:
    """Say whether a path exists in the checkout or inside one of the packages' folders."""
    return any((root / path).exists() for root in (CHECKOUT, *ROOTS))
