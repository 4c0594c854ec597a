"""Sources, tests and documentation use standard terms instead of the banned words."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from support.programs import CHECKOUT

INSTEAD = {
    r"whoever|nobody|somebody|anybody|everybody": "name the actor: the caller, the peer, …",
    r"strangers?": "unauthenticated client, unknown peer",
    r"told|hears?|heard": "sent, notified; receives, received",
    r"borne": "accepted, tolerated",
    r"mend(?:s|ed|ing)?": "fix, fixes, fixed",
    r"octets?": "bytes",
    r"back[ _]ends?": "backend",
    r"of its own accord": "by itself",
}
PATTERNS = {re.compile(rf"\b(?:{words})\b", re.IGNORECASE): fix for words, fix in INSTEAD.items()}
ALLOWED = {
    '"nobody"': "a cluster name in the vectors of docs/protocol.md",
    "'nobody'": "the same in an error text",
    "application/octet-stream": "a media type",
    "HEARD": "a column of `arke status`",
    "heard_ms": "a field of the status document",
}
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".sh", ".patch", ".service", ".cfg", ".html", ""}
"""Suffixes of the checked files."""
RECORDS = ("benchmarks/results/", "CHANGELOG.md")
"""Not checked: they record the past."""
THIS_FILE = "tests/unit/test_wording.py"
OTHER_LIST = "tests/docs/test_pages.py"
"""It contains banned words of its own list."""


def tracked_files() -> list[str]:
    done = subprocess.run(
        ["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    return [
        name
        for name in done.stdout.splitlines()
        if not name.startswith(RECORDS) and name not in {THIS_FILE, OTHER_LIST}
    ]


def private_words(text: str) -> list[str]:
    """Return the banned words in a text, each with the term to use instead."""
    for allowed in ALLOWED:
        text = text.replace(allowed, "")
    return [
        f"{match[0]} (write: {fix})"
        for pattern, fix in PATTERNS.items()
        for match in pattern.finditer(text)
    ]


def test_no_file_contains_private_vocabulary() -> None:
    found = []
    for name in tracked_files():
        path = Path(CHECKOUT, name)
        if path.suffix not in TEXT or "corpus/" in name:
            continue
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [
            f"{name}:{number}: {word}"
            for number, line in enumerate(lines, 1)
            for word in private_words(line)
        ]
    assert not found, "\n".join(found)


def test_no_file_name_contains_private_vocabulary() -> None:
    names = {name: private_words(re.sub(r"[-_/.]", " ", name)) for name in tracked_files()}
    assert not {name: words for name, words in names.items() if words}


def test_private_vocabulary_is_found() -> None:
    assert private_words("Whoever hears of 3 octets") == [
        "Whoever (write: name the actor: the caller, the peer, …)",
        "hears (write: sent, notified; receives, received)",
        "octets (write: bytes)",
    ]
    assert not private_words("Content-Type: application/octet-stream")
