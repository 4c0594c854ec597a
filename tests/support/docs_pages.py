"""Read the pages of the documentation: code spans, fenced blocks, links, headings and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from support.programs import CHECKOUT

DOCS = CHECKOUT / "docs"

_FENCE = re.compile(r"^(?P<mark>```+|~~~+) *(?P<info>[^\n`]*)$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")


class Block(NamedTuple):
    """A fenced or indented block of code."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """Where it is, as the id of a test."""
        return f"{self.page.relative_to(CHECKOUT)}:{self.line}"


def pages() -> list[Path]:
    """Return every page: the site, the README files and the change log."""
    others = [CHECKOUT / name for name in ("README.md", "CHANGELOG.md")]
    others += [CHECKOUT / folder / "README.md" for folder in ("benchmarks", "vagrant")]
    return others + sorted(DOCS.rglob("*.md"))


def blocks(page: Path) -> Iterator[Block]:
    """Return the fenced blocks of a page, in order."""
    inside: Block | None = None
    mark = ""
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        match = _FENCE.match(line)
        if inside is None:
            if match:
                mark = match["mark"]
                inside = Block(page, number, match["info"].strip(), "")
                lines = []
        elif line == mark:
            yield inside._replace(text="\n".join(lines) + "\n")
            inside = None
        else:
            lines.append(line)
    assert inside is None, f"{inside.name} is not closed"


def prose(page: Path) -> str:
    """Return the text of a page without its fenced blocks."""
    unfenced: list[str] = []
    mark = ""
    for line in page.read_text(encoding="utf-8").splitlines():
        match = _FENCE.match(line)
        if mark:
            mark = "" if line == mark else mark
        elif match:
            mark = match["mark"]
        else:
            unfenced.append(line)
    return "\n".join(unfenced) + "\n"


def spans(page: Path) -> list[str]:
    """Return the code spans outside of fenced blocks."""
    return _SPAN.findall(prose(page))


def links(page: Path) -> list[str]:
    """Return the targets of the links of a page."""
    return _LINK.findall(_SPAN.sub("", prose(page)))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as the site and GitHub make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+)$", prose(page), re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", heading.lower()).strip()
        found.add(re.sub(r"[ ]+", "-", words))
    return found


def rows(text: str) -> list[list[str]]:
    """Return the cells of every table row in a text, without headings and rules."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
        if all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            found.pop()  # the row above it is the heading
        else:
            found.append(cells)
    return found
