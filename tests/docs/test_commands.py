"""The commands of the pages run as written; those that cannot run here are checked."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from arke.keygen import write_key
from support.docs_pages import DOCS, Block, blocks, pages, prose, spans
from support.docs_reference import commands
from support.docs_session import Session, steps
from support.programs import CHECKOUT

PAGES = pages()
SESSIONS = [page for page in PAGES if any(step.verb == "run" for step in steps(page))]
SHELL = [block for page in PAGES for block in blocks(page) if block.language == "shell"]
OURS = ("relay", "proxy", "arke")


def name(page: Path) -> str:
    return str(page.relative_to(CHECKOUT))


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One key for all sessions whose page does not make it."""
    path = tmp_path_factory.mktemp("key") / "id_rsa"
    write_key(path)
    return path


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    made = Session(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("page", SESSIONS, ids=name)
def test_page_works_as_written(page: Path, session: Session, key: Path) -> None:
    if not any("keygen id_rsa" in step.block.text for step in steps(page) if step.verb == "run"):
        (session.folder / "id_rsa").write_bytes(key.read_bytes())
        (session.folder / "id_rsa").chmod(0o600)
    for step in steps(page):
        session.take(step)


def test_quickstart_and_tutorial_run() -> None:
    """A lost comment must not leave them unchecked."""
    assert {CHECKOUT / "README.md", DOCS / "tutorial.md", DOCS / "sdk.md"} <= set(SESSIONS)


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.name)
def test_shell_blocks_are_valid(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)


@lru_cache(maxsize=1)
def known_flags() -> dict[str, set[str]]:
    made = {
        command: {f"-{field.replace('_', '-')}" for field in declared.command.specs}
        for command, declared in commands().items()
    }
    return {command: flags | {"-h", "-version"} for command, flags in made.items()}


def written_commands(page: Path) -> list[list[str]]:
    """Return the commands of ours in blocks, indented lines and code spans of a page."""
    lines = [span for span in spans(page) if span.split()[0] in OURS]
    lines += re.findall(r"^    ((?:relay|proxy|arke) .*)$", prose(page), re.MULTILINE)
    for block in blocks(page):
        if block.language in ("shell", "yaml", "ini"):
            text = block.text.replace("\\\n", " ")
            lines += re.findall(r"(?:^|\| |/bin/)((?:relay|proxy|arke) .*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_use_existing_flags(page: Path) -> None:
    for words in written_commands(page):
        command = max(
            (known for known in known_flags() if known.split() == words[: len(known.split())]),
            key=len,
            default="",
        )
        flags = {word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
        if words[0] == "arke" and not command:
            assert flags <= {"-h", "-version"} or "COMMAND" in words, words
            continue
        known = known_flags()[command or words[0]]
        unknown = {flag for flag in flags if flag not in known and flag[1:] not in known}
        assert not unknown, words
