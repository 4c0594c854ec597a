"""Check that the simulation finds planted bugs.

Each bug is a patch in `mutants/`, which is applied to a copy of the tree. Then seeds run until one
fails. The tree without a patch must pass the same seeds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from support.planted_bugs import PatchDoesNotApply, patched_copy

PATCHES = sorted((Path(__file__).parent / "mutants").glob("*.patch"))

_FOLDERS = ("relay/arke_relay", "sdk/arke", "tests/simulation")


@dataclass
class Found:
    """The result of one tree; `seed` is the one that failed, or 0."""

    seed: int
    invariant: str
    text: str
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate-mutants", description=__doc__)
    parser.add_argument(
        "--seeds", type=int, default=500, help="maximum number of seeds for each tree"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="number of trees that run at the same time"
    )
    parser.add_argument("only", nargs="*", help="numbers of patches")
    options = parser.parse_args()
    patches = [p for p in PATCHES if not options.only or p.name.split("-")[0] in options.only]
    unexpected = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        trees = [None, *patches]
        for patch, found in zip(
            trees, pool.map(lambda patch: hunt(patch, options.seeds), trees), strict=True
        ):
            print(_line(patch, found), flush=True)
            survived = isinstance(found, Found) and found.seed == 0
            unexpected += survived if patch else not survived
            unexpected += isinstance(found, PatchDoesNotApply)
    print(f"{len(patches)} planted bugs, {unexpected} unexpected results")
    return 1 if unexpected else 0


def hunt(patch: Path | None, seeds: int) -> Found | PatchDoesNotApply:
    """Run seeds on a copy of the tree, with or without a patch."""
    try:
        with patched_copy(_FOLDERS, patch) as (copy, environment):
            return _hunt(copy, environment, seeds)
    except PatchDoesNotApply as error:
        return error


def _hunt(copy: Path, environment: dict[str, str], seeds: int) -> Found:
    command = [sys.executable, "-m", "simulation.first_failure", str(seeds)]
    started = time.monotonic()
    done = subprocess.run(command, cwd=copy, env=environment, stdout=subprocess.PIPE, check=False)
    seconds = time.monotonic() - started
    if done.returncode == 0:
        return Found(0, "", "", seconds)
    found = json.loads(done.stdout)
    return Found(found["seed"], found["invariant"], found["text"], seconds)


def _line(patch: Path | None, found: Found | PatchDoesNotApply) -> str:
    name = patch.stem if patch else "tree without a patch"
    if isinstance(found, PatchDoesNotApply):
        return f"{name}: {found}"
    if found.seed == 0:
        return f"{name}: {'SURVIVED' if patch else 'clean'} ({found.seconds:.0f} s)"
    text = found.text.splitlines()[0][:160]
    return f"{name}: seed {found.seed} ({found.seconds:.1f} s): {text}"


if __name__ == "__main__":
    sys.exit(main())
