"""Run many seeds and print a table, or repeat one seed."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

from simulation.coverage import Coverage
from simulation.runs import Failure, Run, run

_SEEDS_FOR_FULL_COVERAGE = 1000
"""A run of this many seeds must contain every outcome, event and pair of faults."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeat this seed")
    parser.add_argument("--seeds", type=int, default=1000, help="number of seeds")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument(
        "--jobs", type=int, default=1, help="number of processes; 0: one for each core"
    )
    options = parser.parse_args()
    if options.seed is not None:
        return report(map(run, [options.seed]), full_coverage=False)
    seeds = range(options.first, options.first + options.seeds)
    full_coverage = options.seeds >= _SEEDS_FOR_FULL_COVERAGE
    if options.jobs == 1:
        return report(map(run, seeds), full_coverage=full_coverage)
    with ProcessPoolExecutor(options.jobs or os.cpu_count()) as pool:
        return report(pool.map(run, seeds, chunksize=8), full_coverage=full_coverage)


def report(runs: Iterable[Run], *, full_coverage: bool) -> int:
    """Print the failures and the coverage, and return the exit status.

    With `full_coverage` an outcome or event that never occurred is a failure too.
    """
    started = time.monotonic()
    coverage, failures, count = Coverage(), 0, 0
    for done in _with_progress(runs):
        count += 1
        coverage.add(done.coverage)
        if isinstance(done.failure, Failure):
            failures += 1
            print("\n".join(done.failure.lines()), flush=True)
    print("\n".join(coverage.table()))
    seconds = time.monotonic() - started
    print(f"{count} seeds, {failures} failed, {seconds / count:.3f} s each")
    if count == 1:
        print(f"checksum of the trace: {done.checksum:08x}")
    if full_coverage and coverage.missing:
        print("\n".join(("expected events that did not occur:", *coverage.missing)))
        return 1
    return 1 if failures else 0


def _with_progress(runs: Iterable[Run]) -> Iterator[Run]:
    for number, done in enumerate(runs, 1):
        if number % 1000 == 0:
            print(f"… {number} seeds", file=sys.stderr, flush=True)
        yield done


if __name__ == "__main__":
    sys.exit(main())
