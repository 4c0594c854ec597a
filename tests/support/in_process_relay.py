"""A relay's codecs and core in this process, with a simulated clock, so that output is exact."""

from __future__ import annotations

import asyncio
import logging
from random import Random
from typing import Any

from msgpack import Unpacker

from arke.program.logging import Log
from arke.wire.limits import MAX_MESSAGE
from arke.wire.outbox import Outbox
from arke_relay.attachments.build import build_attachments
from arke_relay.attachments.protocol_detection import ProtocolDetector
from arke_relay.core.membership import Membership, Neighbour
from arke_relay.core.message_core import MessageCore
from arke_relay.environment import RelayEnvironment
from arke_relay.flusher import Flusher
from arke_relay.peers.batch_reader import BatchReader

NOW = 5.0
NODE = "0011223344556677"
PEER = "8899aabbccddeeff"


class RecordingTransport(asyncio.Transport):
    """A transport that records what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.protocol: Any = None
        self.closed = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: the transport always has room."""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written += data

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def pause_reading(self) -> None:
        """Do nothing: a test delivers data itself."""

    def resume_reading(self) -> None:
        """Do nothing: a test delivers data itself."""

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


class RecordingLink:
    """A link to the only peer that records its messages."""

    def __init__(self) -> None:
        outbox = self._outbox = Outbox(MAX_MESSAGE)
        self.put = outbox.put
        self.put_body = outbox.put_body
        self.put_packed = outbox.put_packed
        self.put_in_flow = outbox.put_in_flow
        self.drop_flow = outbox.drop_flow

    def take(self) -> bytes:
        taken = b""
        while self._outbox:
            taken += self._outbox.take(1024)
        return taken

    def flush(self) -> None:
        """Do nothing: `take` returns the queued messages."""

    def overrun(self) -> None:
        raise AssertionError("the outbox is full")

    def acknowledge(self, session: int) -> None:
        """Do nothing: the vectors have no batch headers."""

    def heartbeat(self) -> None:
        """Do nothing: no test checks heartbeats."""

    def close(self, linger: float = 0.0) -> None:
        """Do nothing: there is no socket."""


class InProcessRelay:
    """A relay with one peer, and programs that tests name by a letter."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._now = NOW
        self._flusher = Flusher()
        self._core = MessageCore(NODE, Random(0).random)
        self._core.node.address = "192.168.56.101"
        self._core.router.settled = True
        self._context = build_attachments(
            RelayEnvironment(
                loop=loop,
                clock=lambda: self._now,
                lifetime_clock=lambda: self._now,
                random=Random(0).random,
                random_bytes=Random(0).randbytes,
                log=Log(logging.getLogger("arke.in_process_relay")),
            ),
            self._core,
            self._flusher,
            network="cluster",
            max_message=MAX_MESSAGE,
            status_document=lambda: b"{}",
        )
        self._programs: dict[str, RecordingTransport] = {}
        self._link = RecordingLink()
        self._membership = Membership(self._core.peers, self._dial, lambda *_: None)
        self._batches = BatchReader(
            self._core,
            self._membership,
            MAX_MESSAGE,
            on_known_peer=lambda *_: None,
            on_synced=lambda _: None,
            on_draining=lambda _: None,
        )

    @property
    def peers(self) -> set[str]:
        return set(self._membership.neighbours)

    def attach(self, name: str) -> None:
        transport = self._programs[name] = RecordingTransport()
        transport.protocol = ProtocolDetector(self._context, asyncio.get_running_loop())
        transport.protocol.connection_made(transport)

    def connection(self, name: str) -> Any:
        """The relay's side of an attached program."""
        return self._programs[name].protocol

    def admit_peer(self) -> None:
        self._membership.admitted(PEER, b"", "192.168.56.102", 55556, 55557, MAX_MESSAGE, NOW)

    def send(self, name: str, data: bytes) -> None:
        transport = self._programs[name]
        for at in range(0, len(data), 16 * 1024):
            transport.protocol.data_received(data[at : at + 16 * 1024])
        self._flusher.flush()

    def send_as_peer(self, frame: bytes) -> None:
        self._batches.receive(PEER, frame, NOW)
        self._flusher.flush()

    def received(self, name: str) -> bytes:
        """Return the bytes that the program received since the last call."""
        transport = self._programs[name]
        written, transport.written = transport.written, bytearray()
        return bytes(written)

    def stop_reading(self, name: str) -> None:
        """Make the program's socket buffer full from now on."""
        self._programs[name].protocol.pause_writing()

    def resume_reading(self, name: str) -> None:
        self._programs[name].protocol.resume_writing()

    @property
    def closed(self) -> set[str]:
        """Names of programs whose connection the relay has closed."""
        return {name for name, transport in self._programs.items() if transport.closed}

    @property
    def queued(self) -> int:
        """Bytes that are queued for all programs together."""
        return self._context.registry.queued

    def advance_clock(self, seconds: float) -> None:
        self._now += seconds
        self._core.router.expire(self._now)
        self._flusher.flush()

    def received_by_peer(self) -> bytes:
        return self._link.take()

    def _dial(self, neighbour: Neighbour, session: int) -> RecordingLink:
        return self._link


def unpacked(data: bytes) -> tuple[Any, ...]:
    messages = Unpacker(use_list=False)
    messages.feed(data)
    return tuple(messages)
