"""Write the generated parts of the reference pages: flags, SDK, metrics and log events.

`make reference` runs it. A generated part stands between two comments, `<!-- generated: NAME -->`
and `<!-- end -->`; a test compares it with the code.
"""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from arke.program import flags
from support import docs_sdk
from support.docs_pages import DOCS
from support.programs import CHECKOUT

_PART = re.compile(r"(<!-- generated: (?P<name>[\w .-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

_DEMO = CHECKOUT / "demo-httpserver"
_BENCH = ("request", "publish", "broadcast", "tunnel")


def rewritten(page: Path) -> str:
    """Return the text of a page with its generated parts made anew."""

    def part(match: re.Match[str]) -> str:
        name = match["name"]
        kind, _, argument = name.partition(" ")
        return f"{match[1]}\n{_PARTS[kind](argument)}\n{match[3]}"

    return _PART.sub(part, page.read_text(encoding="utf-8"))


def generated_pages() -> list[Path]:
    """Return the pages that have generated parts."""
    return [page for page in sorted(DOCS.rglob("*.md")) if _PART.search(page.read_text("utf-8"))]


# Flags.


class _Captured(Exception):
    """A command declared its flags: parsing stops here."""

    def __init__(self, command: flags.Command[Any]) -> None:
        super().__init__(command.name)
        self.command = command


def _capture(command: flags.Command[Any], *_: object) -> None:
    raise _Captured(command)


@contextmanager
def _arguments(*words: str) -> Iterator[None]:
    with (
        mock.patch.object(sys, "argv", list(words)),
        mock.patch.object(flags.Command, "parse", _capture),
    ):
        yield


def _script(name: str) -> Callable[[], None]:
    def run() -> None:
        runpy.run_path(str(_DEMO / f"{name}.py"), run_name="__main__")

    return run


def commands() -> dict[str, flags.Command[Any]]:
    """Return every command with flags, by its name."""
    found: dict[str, flags.Command[Any]] = {}
    calls: dict[str, Callable[[], object]] = {
        "relay": import_module("arke_relay.main").main,
        "proxy": import_module("arke_proxy.main").main,
        "httpserver": _script("httpserver"),
        "demo": _script("demo"),
    }
    arke = import_module("arke.cli.main")
    for name in arke._COMMANDS:
        for pattern in _BENCH if name == "bench" else ("",):
            calls[f"arke {name} {pattern}".strip()] = arke.main
    for name, call in calls.items():
        with _arguments(*name.split()):
            try:
                call()
            except _Captured as captured:
                found[name] = captured.command
    return found


def flag_table(name: str) -> str:
    """Return usage, summary and one row for each flag of a command."""
    command = commands()[name]
    specs = command.specs
    arguments = [spec for spec in specs.values() if spec.positional]
    usage = " ".join([name, "[flags]", *(spec.metavar for spec in arguments)])
    lines = [f"`{usage}`: {_sentence(command.summary)}", ""]
    if arguments:
        lines += ["| argument | meaning |", "|---|---|"]
        lines += [f"| `{spec.metavar}` | {_cell(spec.help)} |" for spec in arguments]
        lines.append("")
    lines += ["| flag | environment | default | meaning |", "|---|---|---|---|"]
    for field, spec in specs.items():
        if spec.positional:
            continue
        flag = f"-{field.replace('_', '-')} {spec.metavar}".strip()
        about = _cell(spec.help) + ("; repeatable" if spec.repeat else "")
        environment = f"`ARKE_{field.upper()}`"
        lines.append(f"| `{_cell(flag)}` | {environment} | {_default(spec)} | {about} |")
    return "\n".join(lines) + "\n"


def _default(spec: Any) -> str:
    if spec.required:
        return "required"
    if not spec.metavar:
        return "off"
    words = {"None": "", "()": "", "True": "`on`", "False": "`off`"}
    return words.get(str(spec.default), f"`{spec.default}`")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text[:1].lower() + text[1:]


_PARTS: Mapping[str, Callable[[str], str]] = {
    "flags": flag_table,
    "sdk": docs_sdk.describe,
    "limits": docs_sdk.limits,
    "values": docs_sdk.values,
}


def main() -> None:
    """Rewrite every page that has generated parts."""
    for page in generated_pages():
        page.write_text(rewritten(page), encoding="utf-8")


if __name__ == "__main__":
    main()
