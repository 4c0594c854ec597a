"""Render the public API of the SDK from its source: signatures and docstrings."""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields
from typing import Any

import arke
import arke.mesh
import arke.service
from support.docs_source import trees
from support.programs import CHECKOUT

_SDK = CHECKOUT / "sdk"
_CONSTANTS = vars(arke.service) | vars(arke.mesh)


def describe(argument: str) -> str:
    """Render `CLASS MEMBER…`, `blocking.CLASS MEMBER…` or a module-level function."""
    name, *members = argument.split()
    owner = getattr(arke.blocking, name.removeprefix("blocking.")) if "." in name else None
    thing: Any = owner or getattr(arke, name)
    node = _node(thing)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return _entry(node, f"arke.{name}")
    assert isinstance(node, ast.ClassDef)
    prefix = "blocking " if owner else ""
    short = name.rpartition(".")[2]
    lines = [_prose(node), ""]
    constructor = next((part for part in node.body if _is(part, "__init__")), None)
    if short in _CONSTRUCTED and constructor is not None:
        assert isinstance(constructor, ast.FunctionDef)
        lines += ["```text", _signature(constructor, f"arke.{short}"), "```", ""]
    owners = [node, *_bases(thing)]
    for member in members:
        found = [part for owner in owners for part in owner.body if _is(part, member)]
        if not found:
            lines += [_attribute(owners, short, member), ""]
            continue
        part = found[0]
        assert isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
        lines += [_entry(part, f"{prefix}{short.lower()}.{member}"), ""]
    return "\n".join(lines).rstrip() + "\n"


def limits(_: str) -> str:
    """Render the fields of `arke.Limits`."""
    lines = [_prose(_node(arke.Limits)), "", "| limit | default |", "|---|---|"]
    lines += [f"| `{field.name}` | {field.default:,} |" for field in fields(arke.Limits)]
    return "\n".join(lines) + "\n"


def values(argument: str) -> str:
    """Render the fields of named tuples as one table."""
    lines = ["| value | fields | meaning |", "|---|---|---|"]
    for name in argument.split():
        thing = getattr(arke, name)
        names = ", ".join(f"`{field}`" for field in thing._fields)
        lines.append(f"| `arke.{name}` | {names} | {' '.join(_prose(_node(thing)).split())} |")
    return "\n".join(lines) + "\n"


_CONSTRUCTED = {"Service", "Limits"}


def _node(thing: Any) -> ast.AST:
    file = _SDK / f"{thing.__module__.replace('.', '/')}.py"
    tree = trees()[file if file.exists() else file.with_suffix("") / "__init__.py"]
    name = thing.__qualname__
    return next(node for node in tree.body if getattr(node, "name", None) == name)


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name


def _bases(thing: Any) -> list[ast.ClassDef]:
    ours = [base for base in thing.__mro__[1:] if base.__module__.split(".")[0] == "arke"]
    return [node for node in map(_node, ours) if isinstance(node, ast.ClassDef)]


def _attribute(owners: list[ast.ClassDef], short: str, member: str) -> str:
    """Render an attribute that a constructor sets, with the string behind it."""
    for node in (part for owner in owners for part in ast.walk(owner)):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for at, part in enumerate(body):
            target = _assigned(part)
            if target == member:
                after = body[at + 1] if at + 1 < len(body) else None
                text = ""
                if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                    text = f"\n\n{inspect.cleandoc(str(after.value.value))}"
                return f"{_heading(f'{short.lower()}.{member}')}{text}"
    raise AssertionError(f"{short} has no {member}")


def _assigned(node: ast.AST) -> str:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    target = targets[0]
    return target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")


def _entry(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> str:
    decorators = {ast.unparse(one) for one in node.decorator_list}
    if "property" in decorators:
        kind = ast.unparse(node.returns) if node.returns else ""
        return f"{_heading(name)}\n\nProperty, `{kind}`. {_prose(node)}"
    if decorators & {"asynccontextmanager", "contextlib.asynccontextmanager"}:
        prefix = "async with "
    elif decorators & {"contextmanager", "contextlib.contextmanager"}:
        prefix = "with "
    else:
        prefix = ""
    return f"{_heading(name)}\n\n```text\n{prefix}{_signature(node, name)}\n```\n\n{_prose(node)}"


def _heading(name: str) -> str:
    return f"### `{name}`"


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> str:
    arguments = [part for part in _arguments(node) if part not in {"self", "self, /"}]
    returns = f" -> {_returned(node)}" if node.returns and "init" not in node.name else ""
    start = "await " if isinstance(node, ast.AsyncFunctionDef) and not _yields(node) else ""
    name = name.removeprefix("blocking ")
    line = f"{start}{name}({', '.join(arguments)}){returns}"
    if len(line) <= 92:
        return line
    inside = "".join(f"    {argument},\n" for argument in arguments)
    return f"{start}{name}(\n{inside}){returns}"


def _returned(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return the type of the result; of a context manager, that of what `as` binds."""
    assert node.returns
    if any("contextmanager" in ast.unparse(one) for one in node.decorator_list):
        assert isinstance(node.returns, ast.Subscript)
        return ast.unparse(node.returns.slice)
    return ast.unparse(node.returns)


def _yields(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Yield | ast.YieldFrom) for part in ast.walk(node))


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Split the arguments as `ast.unparse` writes them, at commas outside of brackets."""
    text, parts, depth = ast.unparse(node.args), [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    stripped = (part.strip() for part in parts)
    return [_argument(part) for part in stripped if part]


def _argument(text: str) -> str:
    """Add spaces around `=`, and replace a named default by its value."""
    declared, equals, default = text.partition("=")
    if default in _CONSTANTS:
        value = _CONSTANTS[default]
        default = f"{value:_}" if isinstance(value, int) else repr(value)
    return f"{declared} = {default}" if equals else text


def _prose(node: ast.AST) -> str:
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    text = ast.get_docstring(node)
    assert text, f"{node.name} has no docstring"
    return text
