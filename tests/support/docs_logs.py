"""Read every log event of the three packages from the code: its text, level and fields."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from support.docs_source import nodes

_LEVELS = {
    "debug": "debug",
    "info": "info",
    "warning": "warn",
    "warn": "warn",
    "error": "error",
    "exception": "error",
}
_FOLDERS = {"relay": "relay/arke_relay", "proxy": "proxy/arke_proxy", "sdk": "sdk/arke/"}
_NOT_EVENTS = ("sdk/arke/program", "sdk/arke/cli")


class Event(NamedTuple):
    """One kind of log line. `…` in the text replaces a value."""

    text: str
    level: str
    fields: tuple[str, ...]


def events(package: str) -> list[Event]:
    """Return the events of a package, sorted; one with two levels has both."""
    found: dict[str, tuple[set[str], list[str]]] = {}
    for event in _events(package):
        levels, fields = found.setdefault(event.text, (set(), []))
        levels.add(event.level)
        fields += [field for field in event.fields if field not in fields]
    order = list(dict.fromkeys(_LEVELS.values()))
    return [
        Event(text, " or ".join(sorted(levels, key=order.index)), tuple(fields))
        for text, (levels, fields) in sorted(found.items(), key=lambda item: item[0].lower())
    ]


def _events(package: str) -> Iterator[Event]:
    for file, call in nodes(ast.Call, _FOLDERS[package]):
        if any(folder in str(file) for folder in _NOT_EVENTS):
            continue
        level = _level(call)
        texts = next((texts for texts in (_texts(file, one) for one in call.args[:2]) if texts), [])
        names = (keyword.arg for keyword in call.keywords)
        fields = tuple(name for name in names if name and name != "exc_info")
        for text in texts if level else ():
            if ast.unparse(call.func) == "log":  # log = self._log.info if … else self._log.warning
                yield Event(text, "info", fields)
                yield Event(text, "warn", fields)
            else:
                yield Event(text, level, fields)


def _texts(file: Path, node: ast.AST) -> list[str]:
    """Return the possible texts of a message: one, or all that a function of the module returns."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        for _, function in nodes(ast.FunctionDef, str(file)):
            if function.name == node.func.id and ast.unparse(function.returns or node) == "str":
                return [
                    part.value
                    for returned in ast.walk(function)
                    if isinstance(returned, ast.Return) and returned.value
                    for part in ast.walk(returned.value)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                ]
    return [text] if (text := _text(node)) else []


def _level(call: ast.Call) -> str:
    """Return the level of a call that writes a log line, or nothing."""
    if isinstance(call.func, ast.Name):
        return {"log": "info", "warn_limited": "warn"}.get(call.func.id, "")
    if not isinstance(call.func, ast.Attribute):
        return ""
    receiver = ast.unparse(call.func.value)
    is_log = re.search(r"log\b|limited\(|_lines\(|throttle\b", receiver)
    return _LEVELS.get(call.func.attr, "") if is_log else ""


def _text(node: ast.AST) -> str:
    """Return a message with `…` for each value that varies."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%(\.\d+)?[srdgf]", "…", node.value)
    if isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
        return "".join(str(part) for part in parts)
    return ""
