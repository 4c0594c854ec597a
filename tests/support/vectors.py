"""Read the vectors of docs/protocol.md: messages as values and as bytes."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"


@dataclass(frozen=True)
class Vector:
    """Messages that one endpoint sends or receives, as values and as bytes.

    `endpoint` is the letter of a program, or P for the peer. `from_relay` is the direction.
    """

    endpoint: str
    from_relay: bool
    messages: tuple[Any, ...]
    data: bytes


def conversations() -> list[list[Vector]]:
    """Return the conversations of the document, in order."""
    found = re.findall(r"^```vectors\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return [_vectors(block) for block in found]


def _vectors(block: str) -> list[Vector]:
    entries = re.findall(r"^(\w) ([<>]) (.*)\n((?:^ .*\n)+)", block, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^\w", block, re.MULTILINE)), "a line is not a vector"
    return [
        Vector(endpoint, direction == "<", values(messages), _bytes(data))
        for endpoint, direction, messages, data in entries
    ]


def values(text: str) -> tuple[Any, ...]:
    """Parse adjacent messages in Python syntax; bytes may be multiplied."""
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


def _bytes(text: str) -> bytes:
    """Hexadecimal data; `(61)*65536` is 65536 bytes of 0x61."""
    data = b""
    for byte, times in re.findall(r"\(?([0-9a-f]{2})\)?(?:\*(\d+))?", text):
        data += bytes.fromhex(byte) * int(times or 1)
    return data
