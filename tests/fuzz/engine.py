"""Fuzz one target in this process: `python -m fuzz.engine TARGET [option of libFuzzer …]`."""

from __future__ import annotations

import sys
from importlib import import_module
from random import Random

import atheris

from fuzz.target import Target

_MESSAGE_MUTATION_RATE = 0.6
"""Share of the inputs that are mutated message by message; the others are mutated by bytes."""


def main() -> None:
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["arke", "arke_relay"]):
        target: Target = import_module(f"fuzz.{name}").TARGET

    def change(data: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() >= _MESSAGE_MUTATION_RATE:
            return bytes(atheris.Mutate(data, most))
        changed = target.mutate(data, random)
        return changed if len(changed) <= most else changed[:most]

    atheris.Setup([sys.argv[0], *options], target.run, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
