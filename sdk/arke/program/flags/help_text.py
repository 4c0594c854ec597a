"""The page that `-h` prints."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from arke.program.flags.spec import Kind, Spec, spelling, variable

_WIDEST = 100
_ALWAYS = (("-h", "show this page"), ("-version", "show the version"))


def shown(default: Any) -> str:
    """Return a default as a person would type it; nothing for what goes without saying."""
    if default is None or default == ():
        return ""
    if isinstance(default, bool):
        return "on" if default else "off"
    return str(default)


def command(program: str, summary: str, specs: Mapping[str, Spec]) -> str:
    """Lay out the page of a command with flags and arguments."""
    arguments = [spec for spec in specs.values() if spec.kind is Kind.ARGUMENT]
    flags = {name: spec for name, spec in specs.items() if spec.kind is not Kind.ARGUMENT}
    words = [program, "[flags]", *(spec.metavar for spec in arguments)]
    rows = [(f"{spelling(name)} {spec.metavar}", _described(spec)) for name, spec in flags.items()]
    environment = ""
    if flags:
        example = max(flags, key=lambda name: name.count("_"))
        environment = (
            f"Flags may also come from the environment, {spelling(example)} as "
            f"{variable(example)} and so on; the command line wins."
        )
    return _page(
        _paragraph(summary),
        f"usage: {' '.join(words)}",
        _table("arguments", [(spec.metavar, spec.help) for spec in arguments]),
        _table("flags", [*rows, *_ALWAYS]),
        _paragraph(environment),
    )


def commands(program: str, summary: str, names: Mapping[str, str]) -> str:
    """Lay out the page of a program that has sub-commands."""
    return _page(
        _paragraph(summary),
        f"usage: {program} COMMAND …",
        _table("commands", names.items()),
        _table("flags", _ALWAYS),
        _paragraph(f"`{program} COMMAND -h` says more about one."),
    )


def _described(spec: Spec) -> str:
    notes = [
        *(["required"] if spec.required else []),
        *(["repeatable"] if spec.repeat else []),
        *([f"default: {spec.shown_default}"] if spec.shown_default else []),
    ]
    return f"{spec.help} ({'; '.join(notes)})" if notes else spec.help


def _page(*blocks: str) -> str:
    return "\n\n".join(block for block in blocks if block) + "\n"


def _paragraph(text: str) -> str:
    return textwrap.fill(text, _width())


def _table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    rows = list(rows)
    if not rows:
        return ""
    column = max(len(left.rstrip()) for left, _ in rows) + 4
    lines = [
        textwrap.fill(
            right,
            _width(),
            initial_indent=f"  {left:<{column - 2}}",
            subsequent_indent=" " * column,
            break_on_hyphens=False,
        )
        for left, right in rows
    ]
    return "\n".join([f"{title}:", *lines])


def _width() -> int:
    return min(shutil.get_terminal_size().columns, _WIDEST)
