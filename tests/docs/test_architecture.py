"""Every module, class and function that docs/architecture.md names exists."""

from __future__ import annotations

import re

import pytest

from arke.wire.messages import Op, PeerOp
from support import docs_source as source
from support.docs_pages import DOCS, spans

PAGE = DOCS / "architecture.md"
SPANS = sorted(set(spans(PAGE)))

PATH = re.compile(r"[\w.-]+(/[\w.-]+)*(/|\.py)")
CLASS = re.compile(r"[A-Z][a-z]\w*")
METHOD = re.compile(r"([A-Z][a-z]\w*)\.(\w+)")
FUNCTION = re.compile(r"[a-z]+(_[a-z]+)+")
OPERATION = re.compile(r"[A-Z]{2,}(_[A-Z]+)*")

WIRE_FIELDS = {"request_id", "remaining_ms"}


@pytest.mark.parametrize("path", [span for span in SPANS if PATH.fullmatch(span)])
def test_named_path_exists(path: str) -> None:
    assert source.path_exists(path)


@pytest.mark.parametrize("name", [span for span in SPANS if CLASS.fullmatch(span)])
def test_named_class_exists(name: str) -> None:
    assert name in source.classes()


@pytest.mark.parametrize("name", [span for span in SPANS if METHOD.fullmatch(span)])
def test_named_method_exists(name: str) -> None:
    owner, method = name.split(".")
    assert method in source.classes()[owner]


@pytest.mark.parametrize("name", [span for span in SPANS if FUNCTION.fullmatch(span)])
def test_named_function_exists(name: str) -> None:
    metric = name.startswith("arke_")  # docs/metrics-and-logs.md has a test of its own
    package = source.path_exists(name)
    assert name in source.functions() or name in WIRE_FIELDS or metric or package


def test_operations_of_the_sequence_diagram_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    diagram = text[text.index("sequenceDiagram") : text.index("1. **The caller sends.**")]
    operations = set(re.findall(r": ([A-Z_]+)", diagram))
    assert operations
    assert operations <= {*Op.__members__, *PeerOp.__members__}


def test_enough_is_checked() -> None:
    """A change of the page's style must not leave nothing to check."""
    assert sum(bool(PATH.fullmatch(span)) for span in SPANS) > 50
    assert sum(bool(CLASS.fullmatch(span) or METHOD.fullmatch(span)) for span in SPANS) > 15
