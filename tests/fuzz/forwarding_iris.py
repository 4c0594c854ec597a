"""Packets of an untrusted Iris program that a relay forwards to a peer."""

from __future__ import annotations

from fuzz import iris
from fuzz.forwarding import play_forwarding
from fuzz.simulated_loop import SimulatedLoop
from fuzz.target import Target


async def run(loop: SimulatedLoop, data: bytes) -> None:
    await play_forwarding(loop, data, iris.UntrustedIrisProgram, iris.PRESET_MESSAGES)


TARGET = Target(run, iris.TARGET.mutate)
