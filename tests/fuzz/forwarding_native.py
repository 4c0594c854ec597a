"""Messages of an untrusted native program that a relay forwards to a peer."""

from __future__ import annotations

from fuzz.forwarding import play_forwarding
from fuzz.grammar import native_messages
from fuzz.mutator import Mutator
from fuzz.native import PRESET_MESSAGES, UntrustedNativeProgram
from fuzz.simulated_loop import SimulatedLoop
from fuzz.target import Target
from fuzz.untrusted_program import EVENTS
from fuzz.world import WORLD_EVENTS


async def run(loop: SimulatedLoop, data: bytes) -> None:
    await play_forwarding(loop, data, UntrustedNativeProgram, PRESET_MESSAGES)


TARGET = Target(run, Mutator(native_messages, (*WORLD_EVENTS, *EVENTS, *PRESET_MESSAGES)))
