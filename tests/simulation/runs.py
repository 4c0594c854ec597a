"""Run one seed, and describe its failure."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from simulation.bounds import lowered_limits
from simulation.coverage import Coverage
from simulation.trace import Violation
from simulation.world import World


@dataclass
class Failure:
    """The invariant that did not hold, and the events before."""

    seed: int
    step: int
    time: float
    invariant: str
    text: str
    related_events: list[str]
    last_events: list[str]

    def lines(self) -> list[str]:
        return [
            f"seed {self.seed}, step {self.step}, {self.time:.3f} s: {self.text}",
            *(["last related events:", *self.related_events] if self.related_events else []),
            "last events:",
            *self.last_events,
            f"repeat it with: make simulate SEED={self.seed}",
        ]


@dataclass
class Run:
    """How a run ended. Two runs that received the same bytes have equal checksums."""

    seed: int
    checksum: int
    coverage: Coverage
    failure: Failure | None


def run(seed: int) -> Run:
    with lowered_limits():
        world = World(seed)
        try:
            world.run()
        except Violation as violation:
            failure = _failure(world, violation.invariant, str(violation), violation.keywords)
        except Exception as error:  # noqa: BLE001 — an exception in the simulated code is a finding
            text = "".join(traceback.format_exception(error))
            failure = _failure(world, f"nothing raises ({type(error).__name__})", text, ())
        else:
            failure = None
    return Run(seed, world.trace.checksum, world.coverage, failure)


def _failure(world: World, invariant: str, text: str, keywords: tuple[str, ...]) -> Failure:
    return Failure(
        world.seed,
        world.schedule.steps,
        world.schedule.time,
        invariant,
        text,
        world.trace.last(keywords) if keywords else [],
        world.trace.last()[-25:],
    )
