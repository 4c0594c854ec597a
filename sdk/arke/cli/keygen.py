"""`arke keygen`: generate the RSA key of a network."""

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
    "Generates the RSA key of a network; every relay of the network needs a copy.",
)


def keygen(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Write a new RSA key that only its owner can read."""
    options = KEYGEN.parse(argv, environ)
    try:
        write_key(Path(options.file))
    except FileExistsError:
        fail(f"{options.file} exists and is not overwritten; choose another name")
    except OSError as error:
        fail(f"cannot write {options.file}: {error.strerror}")
