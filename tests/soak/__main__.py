"""`make soak MINUTES=20 SEED=7`: exit status 1 when anything hung, was wrong, or leaked."""

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
from soak.clocks import tidied

PROGRAM = "soak"
_STORM = 45.0


@dataclass(frozen=True, slots=True)
class Options:
    """For how long, and which faults."""

    minutes: int = flags.flag("N", parse=flags.count, default=20, help="how long it goes on")
    seed: int | None = flags.flag("N", parse=flags.count, default=None, help="which faults come")


def main() -> None:
    options = flags.Command(
        PROGRAM, Options, "Break real relays and programs under load, and count."
    ).parse(sys.argv[1:], os.environ)
    seed = options.seed or random.randrange(1, 1 << 31)
    say(f"make soak MINUTES={options.minutes} SEED={seed}")
    try:
        with tempfile.TemporaryDirectory() as folder, tidied(), Lab(hosts=3) as lab:
            found = soak(Campaign(lab, Path(folder), seed, say), options.minutes)
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
        campaign.stage.check_words()
    say(campaign.summary())
    return campaign.findings.count


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


main()
