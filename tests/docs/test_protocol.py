"""docs/protocol.md lists every operation, failure, purpose and ending by its number."""

from __future__ import annotations

import re

import pytest

from arke.wire.messages import Failure, Op, PeerOp, TunnelClose
from support.docs_pages import DOCS, rows

TEXT = (DOCS / "protocol.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    start = TEXT.index(f"## {heading}\n")
    return TEXT[start : TEXT.index("\n## ", start)]


@pytest.mark.parametrize(
    ("heading", "operations"),
    [("Between a program and its relay", Op), ("Between relays", PeerOp)],
    ids=["program", "peer"],
)
def test_every_operation_has_a_row(heading: str, operations: type[Op | PeerOp]) -> None:
    text = section(heading) if "program" in heading else TEXT[TEXT.index(f"## {heading}\n") :]
    listed = {
        (int(number), name)
        for cells in rows(text)
        if re.fullmatch(r"[A-Z_, ]+", cells[1])
        for number, name in zip(cells[0].split(", "), cells[1].split(", "), strict=True)
    }
    assert listed == {(op.value, op.name) for op in operations}


def test_operations_in_diagrams_exist() -> None:
    known = {*Op.__members__, *PeerOp.__members__}
    for diagram in re.findall(r"```mermaid\n(.*?)```", TEXT, re.DOTALL):
        assert set(re.findall(r"\b[A-Z]{3,}[A-Z_]*\b", diagram)) <= known


@pytest.mark.parametrize(
    ("values", "heading"), [(Failure, "failure"), (TunnelClose, "kind")], ids=["failure", "close"]
)
def test_every_value_has_a_row(values: type[Failure | TunnelClose], heading: str) -> None:
    start = TEXT.index(f"| {heading} | meaning |")
    table = TEXT[start : TEXT.index("\n\n", start)]
    assert [int(cells[0]) for cells in rows(table)] == [value.value for value in values]
