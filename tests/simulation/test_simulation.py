"""Some hundreds of seeds, and those that once found something; `make simulate` runs more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.mutants import PATCHES, apply
from simulation.runs import run
from simulation.tally import Tally

SEEDS = range(1, 221)

FOUND = {
    88: "a half body of an earlier session was kept, and a leaving relay waited for its rest",
}
"""Seeds that found bugs, and what these were."""


@pytest.mark.parametrize("first", SEEDS[::20])
def test_whatever_happens_what_is_promised_holds(first: int) -> None:
    for seed in range(first, first + 20):
        failure = run(seed).failure
        assert failure is None, "\n".join(failure.lines())


@pytest.mark.parametrize("seed", FOUND, ids=str)
def test_what_was_found_stays_mended(seed: int) -> None:
    failure = run(seed).failure
    assert failure is None, "\n".join(failure.lines())


def test_a_seed_is_the_same_run_in_every_process() -> None:
    sums = {run(7).sum}
    for hashes in ("1", "2"):
        environment = os.environ | {
            "PYTHONHASHSEED": hashes,
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        code = "from simulation.runs import run; print(run(7).sum)"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        sums.add(int(done.stdout))
    assert len(sums) == 1


def test_different_seeds_are_different_runs() -> None:
    assert run(1).sum != run(2).sum


def test_what_never_happened_is_named() -> None:
    tally = Tally()
    tally.outcomes["answered"] = 1
    tally.overlaps["cut", "pause"] = 1
    assert "no request ended answered" not in tally.missing
    assert "no request ended faulted" in tally.missing
    assert "cut and pause never overlapped" not in tally.missing
    assert "pause and drain never overlapped" in tally.missing


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_planted_bug_can_still_be_planted(patch: Path, tmp_path: Path) -> None:
    checkout = Path(__file__).parents[2]
    for line in patch.read_text(encoding="utf-8").splitlines():
        if line.startswith("+++ "):
            target = tmp_path / line[4:]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((checkout / line[4:]).read_bytes())
    apply(patch, str(tmp_path))
