"""`python -m benchmarks`: run the benchmarks, print the tables and save them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from arke.program import flags
from benchmarks import machine, rounds
from benchmarks.comparisons import discovery, iris, memory, messages, tunnels, two_relays, web
from benchmarks.measure import BenchError, Comparison, Measure
from benchmarks.report import Report

PROGRAM = "bench"
MESH = (
    messages.COMPARISON,
    two_relays.COMPARISON,
    tunnels.COMPARISON,
    iris.COMPARISON,
    discovery.COMPARISON,
    memory.COMPARISON,
)
PARTS = {"mesh": MESH, "proxy": web.COMPARISONS}
NAMES = tuple(
    measure.name
    for part in PARTS.values()
    for comparison in part
    for measure in comparison.measures
)


@dataclass(frozen=True, slots=True)
class Options:
    """What to run, and for how long."""

    seconds: float = flags.flag("TIME", parse=flags.seconds, default=3.0, help="length of each run")
    rounds: int = flags.flag("N", parse=flags.count, default=3, help="runs of each measure")
    part: str = flags.flag(
        "mesh|proxy", parse=flags.choice(*PARTS), default="mesh", help="what to measure"
    )
    only: str | None = flags.flag(
        "NAME",
        parse=flags.choice(*NAMES),
        help=f"run one measure and save nothing: {', '.join(NAMES)}",
    )


def main(argv: Sequence[str]) -> None:
    options = flags.Command(PROGRAM, Options, "Measure Arke and its competitors.").parse(
        argv, os.environ
    )
    try:
        report = take(options)
    except BenchError as error:
        sys.exit("\n".join([f"{PROGRAM}: {error}", *getattr(error, "__notes__", ())]))
    except KeyboardInterrupt:
        sys.exit(130)
    print(report.markdown())
    if options.only is None:
        say(f"saved as {report.save().name}")


def take(options: Options) -> Report:
    wanted = [
        (
            comparison,
            [measure for measure in comparison.measures if options.only in (None, measure.name)],
        )
        for comparison in PARTS[options.part]
    ]
    wanted = [(comparison, measures) for comparison, measures in wanted if measures]
    versions = machine.describe()
    for comparison, _ in wanted:
        versions |= comparison.prepare()
    return Report(
        taken=datetime.now(UTC),
        seconds=options.seconds,
        rounds=options.rounds,
        machine=versions,
        tables=[
            (comparison, outcomes(comparison, measures, options)) for comparison, measures in wanted
        ],
    )


def outcomes(
    comparison: Comparison, measures: Sequence[Measure], options: Options
) -> list[rounds.Outcome]:
    return [
        outcome
        for measure in measures
        for outcome in rounds.run_rounds(
            measure, comparison.competitor, rounds=options.rounds, seconds=options.seconds, log=say
        )
    ]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
