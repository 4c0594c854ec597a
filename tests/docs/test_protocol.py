"""docs/protocol.md lists every operation, failure, purpose and ending by its number."""

from __future__ import annotations

import re

import pytest

from arke.wire.messages import Failure, Op, PeerOp, Purpose, TunnelClose
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
        (int(cells[0]), cells[1])
        for cells in rows(text)
        if cells[0].isdigit() and re.fullmatch(r"[A-Z_]+", cells[1])
    }
    assert listed == {(op.value, op.name) for op in operations}


def test_operations_in_diagrams_exist() -> None:
    known = {*Op.__members__, *PeerOp.__members__}
    for diagram in re.findall(r"```mermaid\n(.*?)```", TEXT, re.DOTALL):
        assert set(re.findall(r"\b[A-Z]{3,}[A-Z_]*\b", diagram)) <= known


@pytest.mark.parametrize("values", [Failure, Purpose, TunnelClose], ids=lambda one: one.__name__)
def test_every_value_has_a_row(values: type[Failure]) -> None:
    marker = {"Failure": "**Failures.**", "Purpose": "| purpose |", "TunnelClose": "| ending |"}
    start = TEXT.index(marker[values.__name__])
    table = TEXT[start : TEXT.index("\n\n", TEXT.index("|---:|", start))]
    assert [int(cells[0]) for cells in rows(table)] == [value.value for value in values]
