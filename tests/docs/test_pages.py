"""Links lead somewhere, and the pages use the vocabulary of the glossary."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.docs_pages import DOCS, anchors, blocks, links, pages, prose
from support.programs import CHECKOUT

PAGES = pages()
IDS = [str(page.relative_to(CHECKOUT)) for page in PAGES]

PRIVATE_WORDS = re.compile(
    r"\b(whoever|nobody|somebody|anybody|everybody|told|borne|mend(s|ed)?|octets?|"
    r"back[ _]ends?|strangers?|casts?)\b",
    re.IGNORECASE,
)
LANGUAGES = {"python", "shell", "text", "console", "json", "yaml", "ini", "mermaid", "vectors", ""}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_to_existing_files_and_headings(page: Path) -> None:
    for link in links(page):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_prose_uses_the_glossary(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    found = [match[0] for match in PRIVATE_WORDS.finditer(text)]
    assert not found


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_blocks_have_a_known_language(page: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, block.name
        assert block.language or page.parent != DOCS, f"{block.name}: say which language"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_json_and_python_blocks_are_well_formed(page: Path) -> None:
    for block in blocks(page):
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "python":
            compile(block.text, block.name, "exec", flags=0x2000)  # top-level await is fine


def test_every_page_is_in_the_navigation() -> None:
    def targets(entries: list[dict[str, object]]) -> Iterator[str]:
        for entry in entries:
            for value in entry.values():
                if isinstance(value, list):
                    yield from targets(value)
                else:
                    yield str(value)

    site = tomllib.loads((CHECKOUT / "zensical.toml").read_text(encoding="utf-8"))
    listed = sorted(targets(site["project"]["nav"]))
    assert listed == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
