"""Run every input of the corpus, and mutations of them."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.__main__ import Outcome, parse_output
from fuzz.mutants import PATCHES, target_of
from fuzz.targets import CORPUS, NAMES, inputs, load
from support.planted_bugs import apply_to_changed_files

INPUTS = [(name, path) for name in NAMES for path in inputs(name)]


@pytest.mark.parametrize(
    ("name", "path"), INPUTS, ids=[f"{name}-{path.name}" for name, path in INPUTS]
)
def test_input_of_the_corpus_causes_no_finding(name: str, path: Path) -> None:
    load(name).run(path.read_bytes())


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**32 - 1), changes=st.integers(1, 12), data=st.binary(max_size=40))
@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_mutated_input_causes_no_finding(name: str, seed: int, changes: int, data: bytes) -> None:
    target, random = load(name), Random(seed)
    corpus = [path.read_bytes() for path in inputs(name)]
    data = random.choice([b"", *corpus])
    for _ in range(changes):
        data = target.mutate(data, random)
    at = random.randrange(len(data) + 1)
    target.run(data[:at] + data + data[at:])


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_patch_of_each_planted_bug_still_applies(patch: Path, tmp_path: Path) -> None:
    assert target_of(patch) in NAMES
    apply_to_changed_files(patch, tmp_path)


ENDED = """
#4096\tNEW    cov: 690 ft: 2815 corp: 288/106Kb lim: 4096 exec/s: 20 rss: 115Mb L: 658/4095
stat::number_of_executed_units: 12941
stat::peak_rss_mb:              115
"""
WRITTEN = "artifact_prefix='x'; Test unit written to "


def test_output_of_libfuzzer_is_parsed() -> None:
    clean = parse_output("native", ENDED, failed=False)
    assert clean == Outcome("native", 12941, 690, 2815, 115, None, "")
    path = CORPUS.parent / ".kept" / "native-crash-1"
    found = parse_output("native", f"{WRITTEN}{path}\n{ENDED}", failed=True)
    assert str(found.finding) == "tests/fuzz/.kept/native-crash-1"
    assert not found.crash_output
    assert parse_output("native", "No module named atheris", failed=True).crash_output
