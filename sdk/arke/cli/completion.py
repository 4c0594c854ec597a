"""`arke completion`: print the shell completion of all commands of this distribution."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

from arke.cli import main
from arke.program import flags

_SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True, slots=True)
class _CompletionOptions:
    shell: str = flags.argument(
        "SHELL", parse=flags.choice(*_SHELLS), help=f"{', '.join(_SHELLS[:-1])} or {_SHELLS[-1]}"
    )


COMPLETION = flags.Command(
    "arke completion",
    _CompletionOptions,
    "Prints a script that completes commands and flags. Add to the start-up file of the shell: "
    'eval "$(arke completion bash)", the same with zsh, or: arke completion fish | source',
)


def completion(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Print the script for one shell."""
    import shtab  # noqa: PLC0415  only this command needs it

    options = COMPLETION.parse(argv, environ)
    for parser in parsers():
        script = shtab.complete(parser, options.shell)
        if options.shell == "fish":  # its -s is for flags of one letter, its -o for long ones
            script = re.sub(r" -s (?=[^ ]{2,} )", " -o ", script)
        print(script)


def parsers() -> Iterator[argparse.ArgumentParser]:
    """Return the parser of each console script of this distribution."""
    yield _arke()
    for script in metadata.distribution("arke").entry_points.select(group="console_scripts"):
        if script.name != "arke":
            yield _parser(script.name, import_module(script.module).COMMAND)


def _arke() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("arke", description=main.SUMMARY, add_help=False)
    commands = parser.add_subparsers()
    for name, about in main.COMMANDS.items():
        command = getattr(main.module_of(name), name.upper())
        parser_of_command = commands.add_parser(name, help=about, add_help=False)
        if isinstance(command, flags.Command):
            _declare(parser_of_command, command)
            continue
        # The patterns of `arke bench` have the same flags.
        parser_of_command.add_argument("pattern", choices=list(command))
        _declare(parser_of_command, next(iter(command.values())))
    return parser


def _parser(name: str, command: flags.Command[Any]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(name, description=command.summary, add_help=False)
    _declare(parser, command)
    return parser


def _declare(parser: argparse.ArgumentParser, command: flags.Command[Any]) -> None:
    import shtab  # noqa: PLC0415

    actions = command.declare(parser)
    for name, spec in command.specs.items():
        action: Any = actions[name]
        if isinstance(spec.parse, flags.choice):
            action.choices = spec.parse.words
        elif any(word in spec.metavar for word in ("FILE", "PATH", "CERT", "SOCKET")):
            action.complete = shtab.FILE
