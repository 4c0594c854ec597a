"""Fuzzes one target in this process: `python -m fuzz.engine TARGET [option of libFuzzer …]`."""

from __future__ import annotations

import sys
from importlib import import_module
from random import Random

import atheris

from fuzz.target import Target

_OF_OURS = 0.6
"""How often an input is changed message by message; else octet by octet."""


def main() -> None:
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["arke", "arke_relay"]):
        target: Target = import_module(f"fuzz.{name}").TARGET

    def change(data: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() >= _OF_OURS:
            return bytes(atheris.Mutate(data, most))
        changed = target.mutate(data, random)
        return changed if len(changed) <= most else changed[:most]

    atheris.Setup([sys.argv[0], *options], target.run, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
