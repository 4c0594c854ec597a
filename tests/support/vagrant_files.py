"""Read `vagrant/`: the units of each machine, and their commands."""

from __future__ import annotations

import configparser
import re
import shlex

from support.programs import CHECKOUT

VAGRANT = CHECKOUT / "vagrant"
UNITS = sorted((VAGRANT / "units").glob("*.service"))


def nodes() -> dict[str, list[str]]:
    """Return the names of the units on each node, by the node's address."""
    lines = re.findall(r'"node\d" => \["([\d.]+)", "([a-z ]+)"\]', _text("Vagrantfile"))
    return {address: names.split() for address, names in lines}


def command(unit: str) -> list[str]:
    """Return the words of the unit's ExecStart."""
    file = configparser.RawConfigParser(delimiters="=", strict=False)
    file.read_string(_text(f"units/{unit}.service"))
    return shlex.split(file["Service"]["ExecStart"])


def _text(name: str) -> str:
    return (VAGRANT / name).read_text(encoding="utf-8")
