"""Seeds until one fails, and which that was: what a run of the mutants asks of each tree."""

from __future__ import annotations

import argparse
import json
import signal
import sys

from simulation.runs import run
from simulation.trace import Violation

_ENDLESS = 30
"""Seconds in which no run of a sound tree has not ended."""


def endless(signum: int, frame: object) -> None:
    raise Violation("a run ends", f"it has not after {_ENDLESS} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int)
    signal.signal(signal.SIGALRM, endless)
    for seed in range(1, parser.parse_args().seeds + 1):
        signal.alarm(_ENDLESS)
        failure = run(seed).failure
        if failure is not None:
            found = {"seed": seed, "invariant": failure.invariant, "text": failure.text}
            print(json.dumps(found))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
