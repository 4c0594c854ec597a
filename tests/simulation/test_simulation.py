"""Run 220 seeds, and the seeds that once found bugs. `make simulate` runs more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.__main__ import report
from simulation.coverage import Coverage
from simulation.mutants import PATCHES
from simulation.runs import Failure, Run, run
from support.planted_bugs import apply_to_changed_files

SEEDS = range(1, 221)

SEEDS_WITH_PAST_BUGS = {
    88: "a partial body of an earlier session was kept, and a draining relay waited for its rest",
}
"""Seeds that found bugs, with a description of each bug."""


@pytest.mark.parametrize("first", SEEDS[::20])
def test_invariants_hold_under_random_faults(first: int) -> None:
    for seed in range(first, first + 20):
        failure = run(seed).failure
        assert failure is None, "\n".join(failure.lines())


@pytest.mark.parametrize("seed", SEEDS_WITH_PAST_BUGS, ids=str)
def test_past_bugs_stay_fixed(seed: int) -> None:
    failure = run(seed).failure
    assert failure is None, "\n".join(failure.lines())


def test_a_seed_gives_the_same_run_in_every_process() -> None:
    checksums = {run(7).checksum}
    for hashes in ("1", "2"):
        environment = os.environ | {
            "PYTHONHASHSEED": hashes,
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        code = "from simulation.runs import run; print(run(7).checksum)"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        checksums.add(int(done.stdout))
    assert len(checksums) == 1


def test_different_seeds_give_different_runs() -> None:
    assert run(1).checksum != run(2).checksum


def test_report_of_a_failing_seed_lists_its_last_events(capsys: pytest.CaptureFixture[str]) -> None:
    failure = Failure(17, 3, 0.5, "a request ends once", "p1#2 ended again", ["p1#2 …"], ["all"])
    assert report([Run(17, 0, Coverage(), failure)], full_coverage=False) == 1
    printed = capsys.readouterr().out
    for wanted in ("seed 17, step 3", "p1#2 ended again", "p1#2 …", "make simulate SEED=17"):
        assert wanted in printed


def test_report_fails_when_full_coverage_is_not_reached(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert report([run(3)], full_coverage=False) == 0
    assert report([run(3)], full_coverage=True) == 1
    assert "expected events that did not occur" in capsys.readouterr().out


def test_coverage_lists_events_that_never_occurred() -> None:
    coverage = Coverage()
    coverage.outcomes["answered"] = 1
    coverage.overlaps["cut", "pause"] = 1
    assert "no request ended answered" not in coverage.missing
    assert "no request ended faulted" in coverage.missing
    assert "cut and pause never overlapped" not in coverage.missing
    assert "pause and drain never overlapped" in coverage.missing


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_patch_of_each_planted_bug_still_applies(patch: Path, tmp_path: Path) -> None:
    apply_to_changed_files(patch, tmp_path)
