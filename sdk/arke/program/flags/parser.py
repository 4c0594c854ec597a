"""Command lines and environments into typed dataclasses.

argparse finds the words; values are converted here, so that one from the environment is
checked, and complained about, exactly like one from the line.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from arke import __version__
from arke.compiled import is_compiled
from arke.program.flags import converters, help_text
from arke.program.flags.spec import KEY, Kind, Spec, spelling, variable

Options = TypeVar("Options")


def flag(
    metavar: str,
    *,
    help: str,  # noqa: A002 - the word argparse taught everyone
    parse: Callable[[str], Any] = converters.text,
    default: Any = None,
    repeat: bool = False,
    required: bool = False,
) -> Any:
    """Declare a flag with a value; a field `peer_port` becomes `-peer-port`.

    `parse` is a converter (see `arke.program.flags.converters`). A default written as text is
    converted too, and the help shows it as written. With `repeat` the field is a tuple.
    """
    shown = help_text.shown(default)
    value = parse(default) if isinstance(default, str) else default
    return _field(
        Spec(Kind.FLAG, metavar, help, parse, shown, repeat=repeat, required=required),
        () if repeat and default is None else value,
    )


def switch(*, help: str) -> Any:  # noqa: A002
    """Declare a flag without a value: False unless it is given."""
    return _field(Spec(Kind.SWITCH, "", help, converters.on_off), default=False)


def argument(metavar: str, *, help: str, parse: Callable[[str], Any] = converters.text) -> Any:  # noqa: A002
    """Declare a positional argument, always required, in the order of the fields."""
    return _field(Spec(Kind.ARGUMENT, metavar, help, parse, required=True), None)


def fail(program: str, message: str, *, status: int = 2) -> NoReturn:
    """Print `message` as one line on stderr and end the process; status 2 means wrong usage."""
    line = " ".join(message.split())
    printable = "".join(character if character.isprintable() else "?" for character in line)
    sys.stderr.write(f"{program.split(maxsplit=1)[0]}: {printable}\n")
    sys.exit(status)


def parse(
    options: type[Options],
    *,
    program: str,
    summary: str,
    argv: Sequence[str],
    environ: Mapping[str, str],
) -> Options:
    """Return `options` filled from `argv`, then from `environ`, then from its defaults.

    Ends the process where the line asks for it: status 0 after `-h` and `-version`, status 2
    after one line on stderr for anything wrong.
    """
    specs = {field.name: field.metadata[KEY] for field in dataclasses.fields(options)}  # type: ignore[arg-type]
    hint = ""
    if any(spec.kind is Kind.ARGUMENT for spec in specs.values()) and _unknown(argv, specs):
        hint = "write -- before a value that begins with -; "
    parser = _parser(program, help_text.command(program, summary, specs), hint)
    for name, spec in specs.items():
        spellings = (spelling(name), f"-{spelling(name)}")
        match spec.kind:
            case Kind.ARGUMENT:
                parser.add_argument(name, metavar=spec.metavar)
            case Kind.SWITCH:
                parser.add_argument(*spellings, dest=name, action="store_true")
            case Kind.FLAG:
                action = "append" if spec.repeat else "store"
                parser.add_argument(*spellings, dest=name, action=action)
    given = vars(parser.parse_args(list(argv)))

    values: dict[str, Any] = {}
    for name, spec in specs.items():
        if name in given:
            source = spec.metavar if spec.kind is Kind.ARGUMENT else spelling(name)
            values[name] = _convert(program, spec, f"{source} ", given[name])
        elif text := environ.get(variable(name)):  # empty is how a unit file says "not set"
            parts = [part.strip() for part in text.split(",")] if spec.repeat else text
            values[name] = _convert(program, spec, f"{variable(name)}=", parts)
        elif spec.required:
            fail(program, f"give {spelling(name)} {spec.metavar}, or set {variable(name)}")
    return options(**values)


def choose(
    *, program: str, summary: str, commands: Mapping[str, str], argv: Sequence[str]
) -> tuple[str, Sequence[str]]:
    """Return the sub-command that `argv` begins with, and the rest of the line for it.

    `commands` maps names to what they do, in a few words. Ends the process as `parse` does.
    """
    first = argv[0] if argv else ""
    if first in commands:
        return first, argv[1:]
    if not first:
        fail(program, f"say which command; `{program} -h` lists them")
    if not first.startswith("-"):
        close = difflib.get_close_matches(first, commands, n=1)
        hint = f"did you mean {close[0]}?" if close else f"`{program} -h` lists them"
        fail(program, f"there is no command {shlex.quote(first)}; {hint}")
    _parser(program, help_text.commands(program, summary, commands)).parse_known_args(argv[:1])
    fail(program, f"flags such as {shlex.quote(first)} stand after the command")


class _Parser(argparse.ArgumentParser):
    """argparse without its usage dump, its help format and its guesses."""

    def __init__(self, program: str, help_page: str, hint: str) -> None:
        super().__init__(
            prog=program,
            add_help=False,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
        )
        self._help_page = help_page
        self._hint = hint

    def format_help(self) -> str:
        return self._help_page

    def error(self, message: str) -> NoReturn:
        mistake = re.sub(r"^argument (\S+)/--\S+:", r"\1:", message)
        fail(self.prog, f"{mistake}; {self._hint}see `{self.prog} -h`")

    def _get_option_tuples(self, option_string: str) -> list[Any]:  # noqa: ARG002
        # allow_abbrev=False covers double dashes only: -po would still become -port, and -h5 -h.
        return []


def _parser(program: str, help_page: str, hint: str = "") -> _Parser:
    parser = _Parser(program, help_page, hint)
    parser.add_argument("-h", "-help", "--help", action="help")
    parser.add_argument("-version", "--version", action=_ShowVersion, nargs=0)
    return parser


def _unknown(argv: Sequence[str], specs: Mapping[str, Spec]) -> bool:
    """Tell whether a word looks like a flag and is none."""
    known = {spelling(name) for name in specs}
    flags = (word.partition("=")[0] for word in argv if word.startswith("-"))
    return any(flag.replace("--", "-", 1) not in known for flag in flags if flag.strip("-"))


class _ShowVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        how = "compiled" if is_compiled() else "not compiled"
        sys.stdout.write(f"{parser.prog.split(maxsplit=1)[0]} {__version__} ({how})\n")
        sys.exit(0)


def _field(spec: Spec, default: Any) -> Any:
    return dataclasses.field(default=default, kw_only=True, metadata={KEY: spec})


def _convert(program: str, spec: Spec, source: str, given: Any) -> Any:
    if isinstance(given, list):
        return tuple(_convert(program, spec, source, text) for text in given)
    if isinstance(given, bool):
        return given
    try:
        if spec.kind is not Kind.ARGUMENT:
            converters.text(given)
        return spec.parse(given)
    except ValueError as error:
        fail(program, f"{source}{shlex.quote(given)}: {error}")
