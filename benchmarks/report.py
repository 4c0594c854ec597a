"""A run as a Markdown page, for people, and as JSON, for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks import table
from benchmarks.measure import Pairing
from benchmarks.rounds import Outcome

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Report:
    """Everything one run has found, and on what."""

    taken: datetime
    seconds: float
    rounds: int
    machine: dict[str, str]
    tables: Sequence[tuple[Pairing, Sequence[Outcome]]]

    def markdown(self) -> str:
        machine = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        tables = "\n".join(
            f"## {pairing.title}\n\n{table.markdown(pairing, outcomes)}"
            for pairing, outcomes in self.tables
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
                {"pairing": pairing.title, "peer": pairing.peer, **values}
                for pairing, outcomes in self.tables
                for values in table.values(outcomes)
            ],
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def save(self) -> Path:
        """Write both beside the earlier ones, and return where the page is."""
        RESULTS.mkdir(exist_ok=True)
        page = RESULTS / f"{self.taken:%Y-%m-%d-%H%M}.md"
        page.write_text(self.markdown())
        page.with_suffix(".json").write_text(self.json())
        return page
