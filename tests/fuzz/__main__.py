"""`make fuzz MINUTES=n [TARGET=name]`: fuzz every target for n minutes, one after another.

Each target runs in its own process. It starts with the corpus of the repository and the interesting
inputs of earlier runs. The exit status is 1 if there is a finding; its input is kept.
"""

from __future__ import annotations

import re
import subprocess
import sys
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path

from fuzz.targets import CORPORA, CORPUS, NAMES

_HERE = Path(__file__).resolve().parent
_CHECKOUT = _HERE.parent.parent
_RESULTS = _HERE / ".kept"
"""The inputs and findings of runs on this machine; git ignores them."""

_MAX_INPUT = 4096  # bytes of an input
_INPUT_TIMEOUT = 30  # seconds after which one input counts as a hang
_MEMORY_LIMIT = 1024  # MiB of the whole process

_UNITS = re.compile(r"stat::number_of_executed_units: (\d+)")
_PEAK = re.compile(r"stat::peak_rss_mb: +(\d+)")
_FEATURES = re.compile(r"cov: (\d+) ft: (\d+)")
_FINDING = re.compile(r"Test unit written to (.+)")


@dataclass(frozen=True)
class Outcome:
    """The result of fuzzing one target."""

    target: str
    inputs: int
    branches: int
    features: int
    peak: int
    """MiB of memory."""
    finding: Path | None
    crash_output: str
    """The last line of the output of a run that crashed; empty otherwise."""

    def __str__(self) -> str:
        line = (
            f"{self.target:12} {self.inputs:>9,} inputs  {self.branches:>5} branches  "
            f"{self.features:>6} features  {self.peak:>4} MiB  "
        )
        if self.finding is not None:
            return line + f"FOUND {self.finding}"
        return line + (f"CRASHED {self.crash_output}" if self.crash_output else "nothing found")


def fuzz(target: str, seconds: int) -> Outcome:
    """Run one target until the time is over or it finds something."""
    kept = _RESULTS / target
    kept.mkdir(parents=True, exist_ok=True)
    log = _RESULTS / f"{target}.log"
    command = (
        *(sys.executable, "-m", "fuzz.engine", target),
        *(f"-max_total_time={seconds}", f"-max_len={_MAX_INPUT}", f"-timeout={_INPUT_TIMEOUT}"),
        *(f"-rss_limit_mb={_MEMORY_LIMIT}", "-print_final_stats=1"),
        *(f"-artifact_prefix={_RESULTS / target}-", str(kept), str(CORPUS / CORPORA[target])),
    )
    with log.open("w") as out:
        ended = subprocess.run(command, stdout=out, stderr=out, cwd=_HERE.parent, check=False)
    return parse_output(target, log.read_text(errors="replace"), failed=ended.returncode != 0)


def parse_output(target: str, output: str, *, failed: bool) -> Outcome:
    """Read the result of a run from libFuzzer's output."""
    branches, features = (_FEATURES.findall(output) or [("0", "0")])[-1]
    finding = _FINDING.search(output)
    return Outcome(
        target,
        _number(_UNITS, output),
        int(branches),
        int(features),
        _number(_PEAK, output),
        Path(finding[1]).relative_to(_CHECKOUT) if finding else None,
        output.strip().rpartition("\n")[2] if failed and not finding else "",
    )


def _number(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.search(text)
    return int(found[1]) if found else 0


def main() -> None:
    parser = ArgumentParser(prog="make fuzz")
    parser.add_argument("minutes", type=float)
    parser.add_argument("target", nargs="?", choices=NAMES)
    options = parser.parse_args()
    names = [options.target] if options.target else NAMES
    outcomes = []
    for name in names:
        outcomes.append(fuzz(name, round(options.minutes * 60)))
        sys.stdout.write(f"{outcomes[-1]}\n")
        sys.stdout.flush()
    sys.exit(any(outcome.finding or outcome.crash_output for outcome in outcomes))


if __name__ == "__main__":
    main()
