"""Record the frames on a host's interface."""

from __future__ import annotations

import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from lab.host import Host

_SNIFFER = Path(__file__).with_name("sniffer.py")
_LIMIT = 10.0


class Capture:
    """A finished capture: whole Ethernet frames of both directions, and the number of lost ones."""

    frames: tuple[bytes, ...] = ()
    lost = 0

    def contains_run(self, payload: bytes, length: int = 8) -> bool:
        """Whether any frame contains `length` successive bytes of `payload`."""
        runs = {payload[at : at + length] for at in range(len(payload) - length + 1)}
        return any(
            frame[at : at + length] in runs
            for frame in self.frames
            for at in range(len(frame) - length + 1)
        )

    @classmethod
    @contextmanager
    def on(cls, host: Host, interface: str) -> Iterator[Capture]:
        """Record frames of `host`; used by `Host.capture`."""
        capture = cls()
        with tempfile.TemporaryFile() as output:
            sniffer = host.start([sys.executable, _SNIFFER, interface], stdout=output)
            sniffer.wait_for_line("listening", _LIMIT)
            yield capture
            sniffer.terminate()
            capture.lost = int(sniffer.wait_for_line(r"lost (\d+)", _LIMIT)[1])
            capture.frames = tuple(_frames(output))


def _frames(output: BinaryIO) -> Iterator[bytes]:
    output.seek(0)
    while prefix := output.read(4):
        (length,) = struct.unpack(">I", prefix)
        yield output.read(length)
