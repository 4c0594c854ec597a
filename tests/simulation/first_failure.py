"""Run seeds until one fails, and print that one as JSON; `mutants` starts it in each tree."""

from __future__ import annotations

import argparse
import json
import signal
import sys

from simulation.runs import run
from simulation.trace import Violation

_RUN_TIMEOUT = 30
"""Seconds. A run of a correct tree always ends sooner."""


def _raise_timeout(signum: int, frame: object) -> None:
    raise Violation("a run ends", f"the run has not ended after {_RUN_TIMEOUT} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int)
    signal.signal(signal.SIGALRM, _raise_timeout)
    for seed in range(1, parser.parse_args().seeds + 1):
        signal.alarm(_RUN_TIMEOUT)
        failure = run(seed).failure
        if failure is not None:
            found = {"seed": seed, "invariant": failure.invariant, "text": failure.text}
            print(json.dumps(found))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
