"""What is declared of one flag, as metadata of its dataclass field, and how its name is written."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

KEY = "arke.program.flags"


class Kind(enum.Enum):
    """How it stands on the line."""

    FLAG = enum.auto()
    SWITCH = enum.auto()
    ARGUMENT = enum.auto()


@dataclass(frozen=True, slots=True)
class Spec:
    """One flag, switch or positional argument."""

    kind: Kind
    metavar: str
    help: str
    parse: Callable[[str], Any]
    shown_default: str = ""
    repeat: bool = False
    required: bool = False


def spelling(name: str) -> str:
    """Return `peer_port` as it stands on the command line: `-peer-port`."""
    return "-" + name.replace("_", "-")


def variable(name: str) -> str:
    """Return `peer_port` as it stands in the environment: `ARKE_PEER_PORT`."""
    return "ARKE_" + name.upper()
