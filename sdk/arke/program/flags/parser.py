"""Declare the flags of a command as a dataclass; fill it from the command line and environment.

argparse splits the command line. Values are converted here, so that values from the environment
get the same checks and messages.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NoReturn, TypeVar

from arke import __version__
from arke.compiled import is_compiled
from arke.program.flags import converters
from arke.program.printable import printable

Options = TypeVar("Options")
_KEY = "arke.program.flags"  # in the metadata of a dataclass field
_MAX_WIDTH = 100  # columns of a help page
_MAX_SHOWN = 100  # characters of a wrong value in an error


@dataclasses.dataclass(frozen=True, slots=True)
class Spec:
    """The declaration of one flag, switch (`metavar` is empty) or positional argument."""

    metavar: str
    help: str
    parse: Callable[[str], Any]
    default: Any = None  # as the help page shows it
    repeat: bool = False
    required: bool = False
    positional: bool = False


def flag(
    metavar: str,
    *,
    help: str,  # noqa: A002  argparse's word
    parse: Callable[[str], Any] = converters.text,
    default: Any = None,
    repeat: bool = False,
    required: bool = False,
) -> Any:
    """Declare a flag with a value; the field `peer_port` becomes `-peer-port`.

    `parse` is a converter. A default that is text is converted too. With `repeat` the field is a
    tuple.
    """
    value = parse(default) if isinstance(default, str) else default
    spec = Spec(metavar, help, parse, default, repeat, required)
    return _field(spec, () if repeat and default is None else value)


def switch(*, help: str) -> Any:  # noqa: A002
    """Declare a flag without a value: True if it is given."""
    return _field(Spec("", help, converters.on_off), default=False)


def argument(metavar: str, *, help: str, parse: Callable[[str], Any] = converters.text) -> Any:  # noqa: A002
    """Declare a required positional argument."""
    return _field(Spec(metavar, help, parse, positional=True), None)


def fail(program: str, message: str, *, status: int = 2) -> NoReturn:
    """Print `message` as one line on stderr and exit; status 2 means wrong usage."""
    line = " ".join(message.split())
    sys.stderr.write(f"{program.split(maxsplit=1)[0]}: {printable(line)}\n")
    sys.exit(status)


@dataclasses.dataclass(frozen=True, slots=True)
class Command(Generic[Options]):
    """A command or sub-command: its name, the dataclass of its flags, and a summary."""

    name: str
    options: type[Options]
    summary: str

    @property
    def specs(self) -> dict[str, Spec]:
        """The declarations by field name."""
        return {field.name: field.metadata[_KEY] for field in dataclasses.fields(self.options)}  # type: ignore[arg-type]

    def parse(self, argv: Sequence[str], environ: Mapping[str, str] | None) -> Options:
        """Return the options from `argv`, else from `environ`, else from their defaults.

        Exits after `-h` and `-version` with status 0, after an error with status 2.
        """
        specs = self.specs
        parser = self._parser(with_environment=environ is not None)
        if any(spec.positional for spec in specs.values()) and _unknown_flags(argv, specs):
            parser.hint = "write -- before a value that begins with -; "
        given = vars(parser.parse_args(list(argv)))
        values: dict[str, Any] = {}
        for name, spec in specs.items():
            if name in given:
                source = spec.metavar if spec.positional else spelling(name)
                values[name] = _convert(self.name, spec, source, given[name])
            elif text := (environ or {}).get(variable(name)):  # empty means not set
                parts = [part.strip() for part in text.split(",")] if spec.repeat else text
                values[name] = _convert(self.name, spec, variable(name), parts)
            elif spec.required:
                fail(self.name, f"give {spelling(name)} {spec.metavar}, or set {variable(name)}")
        return self.options(**values)

    def declare(self, parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
        """Add the arguments and flags to an argparse parser; return its actions by field name."""
        actions: dict[str, argparse.Action] = {}
        arguments = parser.add_argument_group("arguments")
        flags = parser.add_argument_group("flags")
        for name, spec in self.specs.items():
            if spec.positional:
                actions[name] = arguments.add_argument(
                    name, metavar=spec.metavar, help=_described(spec)
                )
                continue
            about: dict[str, Any] = {"dest": name, "help": _described(spec)}
            if spec.metavar:
                about |= {"metavar": spec.metavar, "action": "append" if spec.repeat else "store"}
            else:
                about |= {"action": "store_true"}
            spellings = (spelling(name), f"-{spelling(name)}")
            actions[name] = flags.add_argument(*spellings, **about)
        _declare_help(flags)
        return actions

    def _parser(self, *, with_environment: bool) -> _Parser:
        words = [self.name, "[flags]", *(s.metavar for s in self.specs.values() if s.positional)]
        parser = _Parser(self.name, self.summary, usage=" ".join(words))
        self.declare(parser)
        if with_environment and self.specs:
            example = max(self.specs, key=lambda name: name.count("_"))
            parser.epilog = (
                f"Flags can also be set in the environment, {spelling(example)} as "
                f"{variable(example)} and so on. The command line takes precedence."
            )
        return parser


def choose(
    *, program: str, summary: str, commands: Mapping[str, str], argv: Sequence[str]
) -> tuple[str, Sequence[str]]:
    """Return the sub-command that `argv` begins with, and the rest of `argv`.

    `commands` maps each name to a short description. Exits as `Command.parse` does.
    """
    first = argv[0] if argv else ""
    if first in commands:
        return first, argv[1:]
    if not first:
        fail(program, f"a command is missing; `{program} -h` lists them")
    if not first.startswith("-"):
        close = difflib.get_close_matches(first, commands, n=1)
        hint = f"did you mean {close[0]}?" if close else f"`{program} -h` lists them"
        fail(program, f"unknown command {shlex.quote(first)}; {hint}")
    parser = _Parser(program, summary, usage=f"{program} COMMAND …")
    parser.epilog = f"`{program} COMMAND -h` shows the flags of a command."
    table = parser.add_argument_group("commands")
    for name, about in commands.items():
        table.add_argument(name, nargs="?", help=about)
    _declare_help(parser.add_argument_group("flags"))
    parser.parse_known_args(argv[:1])
    fail(program, f"flags such as {shlex.quote(first)} must follow the command")


def spelling(name: str) -> str:
    """Return a field name as a flag: `-peer-port` for `peer_port`."""
    return "-" + name.replace("_", "-")


def variable(name: str) -> str:
    """Return a field name as an environment variable: `ARKE_PEER_PORT` for `peer_port`."""
    return "ARKE_" + name.upper()


class _Parser(argparse.ArgumentParser):
    """argparse without abbreviations, with one-line errors."""

    hint = ""

    def __init__(self, name: str, summary: str, *, usage: str) -> None:
        super().__init__(
            name,
            usage,
            summary,
            add_help=False,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            formatter_class=_HelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        mistake = re.sub(r"^argument (\S+)/--\S+:", r"\1:", message)
        fail(self.prog, f"{mistake}; {self.hint}see `{self.prog} -h`")

    def _get_option_tuples(self, option_string: str) -> list[Any]:  # noqa: ARG002
        return []  # allow_abbrev=False alone still takes -po for -port, and -h5 for -h


class _HelpFormatter(argparse.HelpFormatter):
    """Shows one spelling of each flag, and all help texts in one column."""

    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, _MAX_WIDTH)
        super().__init__(prog, max_help_position=_MAX_WIDTH, width=width)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return str(action.metavar or action.dest)
        metavar = f" {action.metavar}" if action.metavar else ""
        return f"{action.option_strings[0]}{metavar}"


class _ShowVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        how = "compiled" if is_compiled() else "not compiled"
        sys.stdout.write(f"{parser.prog.split(maxsplit=1)[0]} {__version__} ({how})\n")
        sys.exit(0)


def _declare_help(flags: argparse._ArgumentGroup) -> None:
    flags.add_argument("-h", "-help", "--help", action="help", help="show this page")
    flags.add_argument(
        "-version", "--version", action=_ShowVersion, nargs=0, help="show the version"
    )


def _field(spec: Spec, default: Any) -> Any:
    return dataclasses.field(default=default, kw_only=True, metadata={_KEY: spec})


def _described(spec: Spec) -> str:
    notes = ["required"] if spec.required else []
    notes += ["repeatable"] if spec.repeat else []
    if spec.default is not None:
        words = {"True": "on", "False": "off"}
        notes.append(f"default: {words.get(str(spec.default), spec.default)}")
    about = f"{spec.help} ({'; '.join(notes)})" if notes else spec.help
    return about.replace("%", "%%")  # argparse formats help texts with %


def _unknown_flags(argv: Sequence[str], specs: Mapping[str, Spec]) -> bool:
    known = {spelling(name) for name in specs}
    words = [f"-{word.strip('-').partition('=')[0]}" for word in argv if word.startswith("-")]
    return any(word not in known for word in words if word != "-")


def _convert(program: str, spec: Spec, source: str, given: Any) -> Any:
    if isinstance(given, list):
        return tuple(_convert(program, spec, source, text) for text in given)
    if isinstance(given, bool):
        return given
    try:
        if not spec.positional:
            converters.text(given)
        return spec.parse(given)
    except ValueError as error:
        fail(program, f"{source} {error} (got {shlex.quote(given[:_MAX_SHOWN])})")
