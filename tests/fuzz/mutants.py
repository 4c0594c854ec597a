"""Check that fuzzing finds planted bugs.

Each bug is a patch in `mutants/`, named `NUMBER-TARGET-description.patch`. It is applied to a copy
of the tree, and `make fuzz` runs its target there until something is found. The copy's corpus lacks
the inputs named `found-…`, so the bug must be found by mutation.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from support.planted_bugs import PatchDoesNotApply, patched_copy

PATCHES = sorted((Path(__file__).parent / "mutants").glob("*.patch"))

_FOLDERS = ("relay/arke_relay", "sdk/arke", "tests/fuzz")


@dataclass(frozen=True)
class Outcome:
    """The result of one patch."""

    patch: Path
    found: bool
    text: str


def target_of(patch: Path) -> str:
    """Return the name of the target that must find the bug."""
    return patch.name.split("-")[1]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz-mutants", description=__doc__)
    parser.add_argument(
        "--seconds", type=int, default=180, help="maximum time for each bug (default: %(default)s)"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="number of bugs that are hunted at the same time"
    )
    parser.add_argument("only", nargs="*", help="numbers of patches")
    options = parser.parse_args()
    patches = [p for p in PATCHES if not options.only or p.name.split("-")[0] in options.only]
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = []
        for outcome in pool.map(lambda patch: hunt(patch, options.seconds), patches):
            print(f"{outcome.patch.stem}: {outcome.text}", flush=True)
            outcomes.append(outcome)
    missed = sum(not outcome.found for outcome in outcomes)
    print(f"{len(patches)} planted bugs, {missed} not found")
    return 1 if missed or not patches else 0


def hunt(patch: Path, seconds: int) -> Outcome:
    """Fuzz a copy of the tree with the bug until the bug is found or the time is over."""
    command = [sys.executable, "-m", "fuzz", str(seconds / 60), target_of(patch)]
    try:
        with patched_copy(_FOLDERS, patch, without="found-*") as (copy, environment):
            started = time.monotonic()
            ended = subprocess.run(
                command, cwd=copy, env=environment, capture_output=True, text=True, check=False
            )
            took = time.monotonic() - started
            if "FOUND" in ended.stdout:
                log = copy / "tests/fuzz/.kept" / f"{target_of(patch)}.log"
                return Outcome(patch, True, f"{_finding(log)} ({took:.0f} s)")
    except PatchDoesNotApply as error:
        return Outcome(patch, False, str(error))
    output = (ended.stdout + ended.stderr).strip().rpartition("\n")[2]
    return Outcome(patch, False, f"NOT FOUND ({took:.0f} s): {output}")


def _finding(log: Path) -> str:
    """Return the exception that the log names, or the last line, as for a hang."""
    text = log.read_text(errors="replace").strip()
    _, _, uncaught = text.partition("Uncaught Python exception: ===\n")
    return (uncaught.partition("\n")[0] or text.rpartition("\n")[2])[:160]


if __name__ == "__main__":
    sys.exit(main())
