"""Read the source tree without importing it: files, modules, imports and classes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from support.programs import CHECKOUT

PACKAGES = {"arke": "sdk", "arke_relay": "relay", "arke_proxy": "proxy"}
"""Each package, and the folder that it lies in."""


def files(folder: str) -> list[Path]:
    """Return the Python files below a folder of the checkout."""
    found = sorted((CHECKOUT / folder).rglob("*.py"))
    assert found
    return found


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(file: Path) -> Iterator[str]:
    """Return the dotted names that a file imports; `from a import b` is `a.b`."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(file: Path) -> list[str]:
    """Return the imports of this project's packages."""
    return [name for name in imports(file) if name.split(".")[0] in PACKAGES]


@cache
def modules() -> dict[str, Path]:
    """Return all modules of the packages, by dotted name; a package's is that of its __init__."""
    found = {}
    for package, folder in PACKAGES.items():
        for file in files(f"{folder}/{package}"):
            parts = file.relative_to(CHECKOUT / folder).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = file
    return found


def imported_modules(module: str) -> set[str]:
    """Return the modules that a module imports, anywhere in it, also for type checking only."""
    known = modules()
    found = set()
    for name in own_imports(known[module]):
        found.add(name if name in known else name.rpartition(".")[0])
    return found & known.keys()


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    """Return every class of the packages, with the module that defines it."""
    for module, file in modules().items():
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.ClassDef):
                yield module, node
