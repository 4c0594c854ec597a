"""The report of a benchmark run, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks import table
from benchmarks.measure import Comparison
from benchmarks.rounds import Outcome

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Report:
    """All results of one run, and the machine."""

    taken: datetime
    seconds: float
    rounds: int
    machine: dict[str, str]
    tables: Sequence[tuple[Comparison, Sequence[Outcome]]]

    def markdown(self) -> str:
        machine = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        tables = "\n".join(
            f"## {comparison.title}\n\n{table.markdown(comparison, outcomes)}"
            for comparison, outcomes in self.tables
        )
        return (
            f"# Benchmarks of {self.taken:%d %B %Y, %H:%M} UTC\n\n"
            f"Medians of {self.rounds} alternating rounds of {self.seconds:g} s"
            f" (lowest to highest). {machine}.\n\n{tables}"
        )

    def json(self) -> str:
        content = {
            "taken": self.taken.isoformat(timespec="seconds"),
            "seconds": self.seconds,
            "rounds": self.rounds,
            "machine": self.machine,
            "rows": [
                {"pairing": comparison.title, "competitor_name": comparison.competitor, **values}
                for comparison, outcomes in self.tables
                for values in table.values(outcomes)
            ],
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def save(self) -> Path:
        """Write both files to `results/`; return the path of the Markdown file."""
        RESULTS.mkdir(exist_ok=True)
        page = RESULTS / f"{self.taken:%Y-%m-%d-%H%M}.md"
        page.write_text(self.markdown())
        page.with_suffix(".json").write_text(self.json())
        return page
