"""`python -m benchmarks`: measure, print the tables, keep them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from arke.program import flags
from benchmarks import machine, rounds
from benchmarks.measure import BenchError, Measure, Pairing
from benchmarks.pairings import hop, iris, meeting, memory, messages, tunnels, web
from benchmarks.report import Report

PROGRAM = "bench"
MESH = (
    messages.PAIRING,
    hop.PAIRING,
    tunnels.PAIRING,
    iris.PAIRING,
    meeting.PAIRING,
    memory.PAIRING,
)
PARTS = {"mesh": MESH, "proxy": web.PAIRINGS}
NAMES = tuple(
    measure.name for part in PARTS.values() for pairing in part for measure in pairing.measures
)


@dataclass(frozen=True, slots=True)
class Options:
    """What to run, and for how long."""

    seconds: float = flags.flag("TIME", parse=flags.seconds, default=3.0, help="length of each run")
    rounds: int = flags.flag("N", parse=flags.count, default=3, help="runs of each measure")
    part: str = flags.flag(
        "mesh|proxy", parse=flags.choice(*PARTS), default="mesh", help="what of Arke is measured"
    )
    only: str | None = flags.flag(
        "NAME",
        parse=flags.choice(*NAMES),
        help=f"one measure, shown and not kept: {', '.join(NAMES)}",
    )


def main(argv: Sequence[str]) -> None:
    options = flags.Command(PROGRAM, Options, "Measure Arke beside its peers.").parse(
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
        say(f"kept as {report.save().name}")


def take(options: Options) -> Report:
    wanted = [
        (pairing, [measure for measure in pairing.measures if options.only in (None, measure.name)])
        for pairing in PARTS[options.part]
    ]
    wanted = [(pairing, measures) for pairing, measures in wanted if measures]
    versions = machine.describe()
    for pairing, _ in wanted:
        versions |= pairing.prepare()
    return Report(
        taken=datetime.now(UTC),
        seconds=options.seconds,
        rounds=options.rounds,
        machine=versions,
        tables=[(pairing, outcomes(pairing, measures, options)) for pairing, measures in wanted],
    )


def outcomes(
    pairing: Pairing, measures: Sequence[Measure], options: Options
) -> list[rounds.Outcome]:
    return [
        outcome
        for measure in measures
        for outcome in rounds.take(
            measure, pairing.peer, rounds=options.rounds, seconds=options.seconds, say=say
        )
    ]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
