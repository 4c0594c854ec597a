"""Write the generated parts of the reference pages: flags, SDK, metrics and log events.

`make reference` runs it. A generated part lies between two comments, `<!-- generated: NAME -->`
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
from typing import Any, NamedTuple
from unittest import mock

from arke.program import flags
from support import docs_sdk
from support.docs_logs import events
from support.docs_pages import DOCS, rows
from support.programs import CHECKOUT

_PART = re.compile(
    r"(<!-- generated: (?P<name>[\w .-]+) -->\n)(?P<old>.*?)(<!-- end -->)", re.DOTALL
)

_DEMO = CHECKOUT / "demo-httpserver"
_BENCH = ("request", "publish", "broadcast", "tunnel")


def rewritten(page: Path) -> str:
    """Return the text of a page with its generated parts written again."""

    def part(match: re.Match[str]) -> str:
        name = match["name"]
        kind, _, argument = name.partition(" ")
        text = _PARTS[kind](argument, match["old"])
        return f"{match[1]}\n{text}\n<!-- end -->"

    return _PART.sub(part, page.read_text(encoding="utf-8"))


def generated_pages() -> list[Path]:
    """Return the pages that have generated parts."""
    return [page for page in sorted(DOCS.rglob("*.md")) if _PART.search(page.read_text("utf-8"))]


# Flags.


class _Captured(Exception):
    """A command declared its flags: parsing stops here."""

    def __init__(self, command: flags.Command[Any], *, environment: bool) -> None:
        super().__init__(command.name)
        self.declared = Declared(command, environment)


class Declared(NamedTuple):
    """A command, and whether its flags can be set in the environment."""

    command: flags.Command[Any]
    environment: bool


def _capture(command: flags.Command[Any], _: object, environ: object) -> None:
    raise _Captured(command, environment=environ is not None)


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


def commands() -> dict[str, Declared]:
    """Return every command with flags, by its name."""
    found: dict[str, Declared] = {}
    calls: dict[str, Callable[[], object]] = {
        "relay": import_module("arke_relay.main").main,
        "proxy": import_module("arke_proxy.main").main,
        "httpserver": _script("httpserver"),
        "demo": _script("demo"),
    }
    arke = import_module("arke.cli.main")
    for name in arke.COMMANDS:
        for pattern in _BENCH if name == "bench" else ("",):
            calls[f"arke {name} {pattern}".strip()] = arke.main
    for name, call in calls.items():
        with _arguments(*name.split()):
            try:
                call()
            except _Captured as captured:
                found[name] = captured.declared
    return found


def flag_table(name: str) -> str:
    """Return usage, summary and one row for each flag of a command."""
    command, in_environment = commands()[name]
    specs = command.specs
    arguments = [spec for spec in specs.values() if spec.positional]
    usage = " ".join([name, "[flags]", *(spec.metavar for spec in arguments)])
    lines = [_cell(command.summary), "", f"Usage: `{usage}`", ""]
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
        environment = f"`ARKE_{field.upper()}`" if in_environment else ""
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


# Metrics and log events.


def metric_table(prefix: str) -> str:
    """Return one row for each metric with this prefix."""
    from support.docs_metrics import METRICS  # noqa: PLC0415 - the other parts do not need it

    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for name, metric in METRICS.items():
        if name.startswith("arke_proxy_") is (prefix == "proxy"):
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            lines.append(f"| `{name}` | {metric.kind} | {labels} | {_cell(metric.help)} |")
    return "\n".join(lines) + "\n"


def log_table(package: str, old: str) -> str:
    """Return one row for each log event; the meanings are kept from the page."""
    meanings = {cells[0].strip("`"): cells[-1] for cells in rows(old)}
    lines = ["| event | level | fields | meaning |", "|---|---|---|---|"]
    for event in events(package):
        fields = ", ".join(f"`{field}`" for field in event.fields)
        text = _cell(event.text)
        lines.append(f"| `{text}` | {event.level} | {fields} | {meanings.get(text, MISSING)} |")
    return "\n".join(lines) + "\n"


MISSING = "(not described yet)"

_PARTS: Mapping[str, Callable[[str, str], str]] = {
    "flags": lambda name, _: flag_table(name),
    "sdk": lambda name, _: docs_sdk.describe(name),
    "limits": lambda name, _: docs_sdk.limits(name),
    "values": lambda name, _: docs_sdk.values(name),
    "metrics": lambda name, _: metric_table(name),
    "log": log_table,
}


def main() -> None:
    """Rewrite every page that has generated parts."""
    for page in generated_pages():
        page.write_text(rewritten(page), encoding="utf-8")


if __name__ == "__main__":
    main()
