"""Some hundreds of seeds, and those that once found something; `make simulate` runs more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.__main__ import report
from simulation.mutants import PATCHES, apply
from simulation.runs import Failure, Run, run
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


def test_a_failing_seed_is_named_with_what_led_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    failure = Failure(17, 3, 0.5, "a request ends once", "p1#2 ended again", ["p1#2 …"], ["all"])
    assert report([Run(17, 0, Tally(), failure)], whole=False) == 1
    printed = capsys.readouterr().out
    for wanted in ("seed 17, step 3", "p1#2 ended again", "p1#2 …", "make simulate SEED=17"):
        assert wanted in printed


def test_many_seeds_in_which_something_never_happened_are_not_enough(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert report([run(3)], whole=False) == 0
    assert report([run(3)], whole=True) == 1
    assert "what should have happened and did not" in capsys.readouterr().out


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
