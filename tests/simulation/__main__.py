"""The command: many seeds and a table, or one seed again."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

from simulation.runs import Failure, Run, run
from simulation.tally import Tally

_ALL = 1000
"""Seeds in which everything must have occurred."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one again")
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument(
        "--jobs", type=int, default=1, help="processes to run them in; 0: one a core"
    )
    options = parser.parse_args()
    if options.seed is not None:
        return report(map(run, [options.seed]), whole=False)
    seeds = range(options.first, options.first + options.seeds)
    if options.jobs == 1:
        return report(map(run, seeds), whole=options.seeds >= _ALL)
    with ProcessPoolExecutor(options.jobs or os.cpu_count()) as pool:
        return report(pool.map(run, seeds, chunksize=8), whole=options.seeds >= _ALL)


def report(runs: Iterable[Run], *, whole: bool) -> int:
    """Print what came of them. `whole`: there were so many that everything must have occurred."""
    began = time.monotonic()
    tally, failures, count = Tally(), 0, 0
    for done in _shown(runs):
        count += 1
        tally.add(done.tally)
        if isinstance(done.failure, Failure):
            failures += 1
            print("\n".join(done.failure.lines()), flush=True)
    print("\n".join(tally.table()))
    seconds = time.monotonic() - began
    print(f"{count} seeds, {failures} failed, {seconds / count:.3f} s each")
    if count == 1:
        print(f"sum of the trace: {done.sum:08x}")
    if whole and tally.missing:
        print("\n".join(("what should have happened and did not:", *tally.missing)))
        return 1
    return 1 if failures else 0


def _shown(runs: Iterable[Run]) -> Iterator[Run]:
    for number, done in enumerate(runs, 1):
        if number % 1000 == 0:
            print(f"… {number} seeds", file=sys.stderr, flush=True)
        yield done


if __name__ == "__main__":
    sys.exit(main())
