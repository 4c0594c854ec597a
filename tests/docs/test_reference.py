"""The generated parts of the reference pages match the code; `make reference` writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

import arke
from support.docs_pages import DOCS, rows
from support.docs_reference import commands, generated_pages, rewritten

PAGES = generated_pages()


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_generated_parts_match_the_code(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == rewritten(page), "run `make reference`"


@pytest.mark.parametrize("name", arke.__all__)
def test_every_public_name_of_the_sdk_is_documented(name: str) -> None:
    text = (DOCS / "sdk.md").read_text(encoding="utf-8")
    assert f"arke.{name}" in text or f"`{name}`" in text


def test_every_error_says_whether_a_retry_is_safe() -> None:
    text = (DOCS / "sdk.md").read_text(encoding="utf-8")
    section = text[text.index("## Errors") : text.index("## Limits")]
    documented = {cells[0].strip("`") for cells in rows(section)}
    errors = {
        name
        for name in arke.__all__
        if isinstance(getattr(arke, name), type) and issubclass(getattr(arke, name), Exception)
    }
    assert documented == errors


def test_every_command_has_its_flags_on_the_page() -> None:
    page = (DOCS / "flags.md").read_text(encoding="utf-8")
    for command in commands():
        assert f"<!-- generated: flags {command} -->" in page
