"""`make soak MINUTES=20 SEED=7`: the exit status is 1 if an operation hung or memory leaked."""

from __future__ import annotations

import os
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from arke.program import flags
from lab import Lab, LabUnavailable
from soak.campaign import Campaign
from soak.clocks import shared_memory_cleanup

PROGRAM = "soak"
_STORM = 45.0


@dataclass(frozen=True, slots=True)
class Options:
    """The flags of `make soak`."""

    minutes: int = flags.flag("N", parse=flags.count, default=20, help="duration in minutes")
    seed: int | None = flags.flag(
        "N", parse=flags.count, default=None, help="seed of the faults; random by default"
    )


def main() -> None:
    options = flags.Command(
        PROGRAM, Options, "Break real relays and programs under load, and count."
    ).parse(sys.argv[1:], os.environ)
    seed = options.seed or random.randrange(1, 1 << 31)
    print_line(f"make soak MINUTES={options.minutes} SEED={seed}")
    try:
        with tempfile.TemporaryDirectory() as folder, shared_memory_cleanup(), Lab(hosts=3) as lab:
            found = soak(Campaign(lab, Path(folder), seed, print_line), options.minutes)
    except LabUnavailable as reason:
        sys.exit(f"{PROGRAM}: {reason}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(1 if found else 0)


def soak(campaign: Campaign, minutes: int) -> int:
    campaign.begin()
    try:
        campaign.soak(minutes * 60.0, _STORM)
        campaign.end()
    except (TimeoutError, OSError) as error:
        campaign.findings.add(str(error))
        campaign.testbed.check_output()
    print_line(campaign.summary())
    return campaign.findings.count


def print_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


main()
