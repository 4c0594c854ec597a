"""One run from its seed, and what is to be said when it fails."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from simulation.bounds import lowered
from simulation.tally import Tally
from simulation.trace import Violation
from simulation.world import World


@dataclass
class Failure:
    """What did not hold, and what happened before."""

    seed: int
    step: int
    time: float
    invariant: str
    text: str
    concerned: list[str]
    last: list[str]

    def lines(self) -> list[str]:
        return [
            f"seed {self.seed}, step {self.step}, {self.time:.3f} s: {self.text}",
            *(["the last events concerned:", *self.concerned] if self.concerned else []),
            "the last events of all:",
            *self.last,
            f"again: make simulate SEED={self.seed}",
        ]


@dataclass
class Run:
    """How a run ended. `sum` is equal for two runs in which the same octets arrived."""

    seed: int
    sum: int
    tally: Tally
    failure: Failure | None


def run(seed: int) -> Run:
    with lowered():
        world = World(seed)
        try:
            world.run()
        except Violation as violation:
            failure = _failure(world, violation.invariant, str(violation), violation.concerned)
        except Exception as error:  # noqa: BLE001 — what is simulated raised: that is a finding
            text = "".join(traceback.format_exception(error))
            failure = _failure(world, f"nothing raises ({type(error).__name__})", text, ())
        else:
            failure = None
    return Run(seed, world.trace.sum, world.tally, failure)


def _failure(world: World, invariant: str, text: str, concerned: tuple[str, ...]) -> Failure:
    return Failure(
        world.seed,
        world.schedule.steps,
        world.schedule.time,
        invariant,
        text,
        world.trace.last(concerned) if concerned else [],
        world.trace.last()[-25:],
    )
