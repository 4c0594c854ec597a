"""`make fuzz MINUTES=n [TARGET=name]`: every target for n minutes, one after another.

Each runs in a process of its own, beginning with the corpus that is in the repository and with what
earlier runs found interesting. Exits 1 when there is a finding: its input is kept.
"""

from __future__ import annotations

import re
import subprocess
import sys
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path

from fuzz.targets import CORPUS, NAMES

_HERE = Path(__file__).resolve().parent
_CHECKOUT = _HERE.parent.parent
_KEPT = _HERE / ".kept"
"""Not in the repository: what this machine's runs have come to."""

_LONGEST = 4096  # octets of an input
_SLOWEST = 30  # seconds that one input may take, before it counts as stuck
_MEMORY = 1024  # MiB of the whole process

_UNITS = re.compile(r"stat::number_of_executed_units: (\d+)")
_PEAK = re.compile(r"stat::peak_rss_mb: +(\d+)")
_FEATURES = re.compile(r"cov: (\d+) ft: (\d+)")
_FINDING = re.compile(r"Test unit written to (.+)")


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    target: str
    runs: int
    branches: int
    features: int
    peak: int
    """MiB of memory."""
    finding: Path | None
    broke: str
    """The last words of a run that ended as none should."""

    def __str__(self) -> str:
        line = (
            f"{self.target:12} {self.runs:>9,} runs  {self.branches:>5} branches  "
            f"{self.features:>6} features  {self.peak:>4} MiB  "
        )
        if self.finding is not None:
            return line + f"FOUND {self.finding}"
        return line + (f"BROKE {self.broke}" if self.broke else "nothing found")


def fuzz(target: str, seconds: int) -> Outcome:
    """Run one target; a finding ends it."""
    kept = _KEPT / target
    kept.mkdir(parents=True, exist_ok=True)
    log = _KEPT / f"{target}.log"
    command = (
        *(sys.executable, "-m", "fuzz.engine", target),
        *(f"-max_total_time={seconds}", f"-max_len={_LONGEST}", f"-timeout={_SLOWEST}"),
        *(f"-rss_limit_mb={_MEMORY}", "-print_final_stats=1"),
        *(f"-artifact_prefix={_KEPT / target}-", str(kept), str(CORPUS / target)),
    )
    with log.open("w") as out:
        ended = subprocess.run(command, stdout=out, stderr=out, cwd=_HERE.parent, check=False)
    return understand(target, log.read_text(errors="replace"), failed=ended.returncode != 0)


def understand(target: str, said: str, *, failed: bool) -> Outcome:
    """What a run came to, by what libFuzzer wrote of it."""
    branches, features = (_FEATURES.findall(said) or [("0", "0")])[-1]
    finding = _FINDING.search(said)
    return Outcome(
        target,
        _number(_UNITS, said),
        int(branches),
        int(features),
        _number(_PEAK, said),
        Path(finding[1]).relative_to(_CHECKOUT) if finding else None,
        said.strip().rpartition("\n")[2] if failed and not finding else "",
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
    sys.exit(any(outcome.finding or outcome.broke for outcome in outcomes))


if __name__ == "__main__":
    main()
