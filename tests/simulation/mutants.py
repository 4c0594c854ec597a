"""Check that the simulation finds planted bugs.

Each bug is a patch in `mutants/`, which is applied to a copy of the tree. Then seeds run until one
fails. The tree without a patch must pass the same seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

CHECKOUT = Path(__file__).parents[2]
PATCHES = sorted((Path(__file__).parent / "mutants").glob("*.patch"))

_TREES = ("relay/arke_relay", "sdk/arke", "tests/simulation")


class PatchDoesNotApply(Exception):
    """The code that a patch changes has changed: the patch must be written again."""


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
    with TemporaryDirectory(prefix="arke-mutant-") as copy:
        for tree in _TREES:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(CHECKOUT / tree, Path(copy, tree), ignore=ignored)
        if patch:
            try:
                apply(patch, copy)
            except PatchDoesNotApply as error:
                return error
        return _hunt(copy, seeds)


def apply(patch: Path, tree: str) -> None:
    """Apply a patch to the tree. Raises PatchDoesNotApply."""
    command = ["git", "apply", "-p0", os.fspath(patch)]
    # git must not take a repository around the copy for the copy's own.
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": os.fspath(Path(tree).parent)}
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PatchDoesNotApply(f"{patch.name} no longer applies: {done.stderr.strip()}")


def _hunt(tree: str, seeds: int) -> Found:
    paths = [Path(tree, "tests"), Path(tree, "sdk"), Path(tree, "relay")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.fspath, paths))}
    command = [sys.executable, "-m", "simulation.first_failure", str(seeds)]
    started = time.monotonic()
    done = subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.PIPE, check=False)
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
