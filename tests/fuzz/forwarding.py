"""An untrusted program at one relay must not make the relay send what its peer rejects.

Two relays with real codecs are linked. The peer side of one must accept every message that the
program side of the other has accepted: it may refuse a request, but it must not end the link.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from unittest.mock import patch

from arke.wire.messages import Op
from arke_relay.core.membership import LossReason
from arke_relay.peers import message_handlers
from fuzz.finding import Finding, require
from fuzz.linked_world import LinkedWorld
from fuzz.script import steps
from fuzz.simulated_loop import SimulatedLoop
from fuzz.untrusted_program import RECONNECT, UntrustedProgram
from fuzz.world import MAX_INBOX, NODE, World, small_limits

FAR_NODE = "bbbbbbbbbbbbbbbb"
FAR_CLUSTER = "t"
"""A cluster with a member at the far relay only."""

_MAX_EXCHANGES = 1_000


class LinkedPair:
    """The relay of the untrusted program, and its peer."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.near, self.far = LinkedWorld(loop, NODE), LinkedWorld(loop, FAR_NODE)
        self.far.client.send_message(Op.REGISTER, FAR_CLUSTER, None)

    async def link(self) -> None:
        """Link both relays, also again after their link was overrun."""
        if FAR_NODE not in self.near.membership.neighbours:
            self.far.membership.end(NODE, LossReason.REPLACED, self.far.loop.now)
            self.near.admit(FAR_NODE)
            self.far.admit(NODE)
        for world in (self.near, self.far):
            world.membership.tick(world.loop.now)
        await self.rest()

    async def rest(self) -> None:
        """Deliver frames until neither relay sends more. Raises Finding."""
        for _ in range(_MAX_EXCHANGES):
            await self.near.rest()
            await self.far.rest()
            frames = [
                (receiver, sender, frame)
                for sender, receiver in ((self.near, self.far), (self.far, self.near))
                for link in sender.links.values()
                for frame in link.take_frames()
            ]
            if not frames:
                return
            for receiver, sender, frame in frames:
                receiver.receive_frame(sender.core.node.id, frame)
            self.check()
        raise Finding("two relays never become idle")

    def check(self) -> None:
        for world in (self.near, self.far):
            for reason, detail in world.losses:
                text = f"{world.core.node.id} rejects what its peer sends: {detail}"
                require(reason != LossReason.PROTOCOL_ERROR, text)


async def play_forwarding(
    loop: SimulatedLoop,
    data: bytes,
    attach: Callable[[World], UntrustedProgram],
    preset_messages: Mapping[int, Callable[[UntrustedProgram], bytes]],
) -> None:
    """Send an input from an untrusted program to one of two linked relays."""
    with small_limits(), patch.object(message_handlers, "_MAX_INBOX", MAX_INBOX):
        pair = LinkedPair(loop)
        await pair.link()
        program = attach(pair.near)
        for reads, event_number in steps(data):
            for read in reads:
                program.feed(read)
            await pair.rest()
            program.handle_event(event_number, preset_messages)
            if event_number == RECONNECT:
                program.transport.disconnect()
                program = attach(pair.near)
            for world in (pair.near, pair.far):
                await world.handle_event(event_number)
            await pair.link()
        pair.check()
