"""`arke keygen`: the one secret of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from arke.cli.exit_status import fail
from arke.keygen import write_key
from arke.program import flags


@dataclass(frozen=True, slots=True)
class _KeygenOptions:
    file: str = flags.argument("FILE", help="where to write the key; must not exist")


KEYGEN = flags.Command(
    "arke keygen",
    _KeygenOptions,
    "Makes the RSA key of a network; give the same file to each of its relays.",
)


def keygen(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Write a new RSA key that only its owner can read."""
    options = KEYGEN.parse(argv, environ)
    try:
        write_key(Path(options.file))
    except FileExistsError:
        fail(f"{options.file} exists; a key is never overwritten: choose another name")
    except OSError as error:
        fail(f"cannot write {options.file}: {error.strerror}")
