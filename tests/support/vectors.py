"""The vectors of docs/protocol.md: who says what, as values and as octets."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"


@dataclass(frozen=True)
class Vector:
    """`said` is what messages read as, `octets` how they travel."""

    who: str
    heard: bool
    said: tuple[Any, ...]
    octets: bytes


def blocks() -> list[list[Vector]]:
    """The conversations of the document, in their order."""
    found = re.findall(r"^```vectors\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return [_vectors(block) for block in found]


def _vectors(block: str) -> list[Vector]:
    entries = re.findall(r"^(\w) ([<>]) (.*)\n((?:^ .*\n)+)", block, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^\w", block, re.MULTILINE)), "lines that are no vector"
    return [
        Vector(who, direction == "<", values(said), _octets(octets))
        for who, direction, said, octets in entries
    ]


def values(text: str) -> tuple[Any, ...]:
    """Messages beside each other, as Python writes them; octets may be multiplied."""
    tree = ast.parse(f"({text.replace('] [', '], [')},)", mode="eval")
    value = _value(tree.body)
    assert isinstance(value, tuple)
    return value


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _value(node.left) * _value(node.right)
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(map(_value, node.elts))
    return ast.literal_eval(node)


def _octets(text: str) -> bytes:
    """Hexadecimal octets; `(61)*65536` is so many of them."""
    octets = b""
    for octet, times in re.findall(r"\(?([0-9a-f]{2})\)?(?:\*(\d+))?", text):
        octets += bytes.fromhex(octet) * int(times or 1)
    return octets
