"""The data socket: receives the batches of every admitted peer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq

from arke_relay.flusher import Flusher
from arke_relay.peers.batch_reader import MAX_FRAME
from arke_relay.peers.keys import CurvePair
from arke_relay.peers.zmq_sockets import DATA_DOMAIN, SocketWatcher, curve_server

_MAX_READ = MAX_FRAME
"""Bytes read before the event loop runs other callbacks."""

_FRAME_COST = 1024
"""Bytes that a frame counts for beside its content: empty frames also cost time."""


class DataReceiver:
    """Calls `on_frame` with the sender's CURVE key, as the ZAP handler attached it, and a frame."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        keys: CurvePair,
        on_frame: Callable[[bytes, bytes], None],
        flusher: Flusher,
    ) -> None:
        self._on_frame = on_frame
        self._flusher = flusher
        self.socket = curve_server(context, zmq.PULL, keys, DATA_DOMAIN, MAX_FRAME)
        self._watcher = SocketWatcher(loop, self.socket, self._read)

    def close(self) -> None:
        self._watcher.close()
        self.socket.close()

    def _read(self) -> bool:
        read = 0
        try:
            while read < _MAX_READ:
                read += self._read_frame()
        except zmq.Again:
            return False
        finally:
            self._flusher.flush()
        return True

    def _read_frame(self) -> int:
        frame = self.socket.recv(zmq.NOBLOCK, copy=False)
        key = frame.get("User-Id")
        self._on_frame(bytes.fromhex(str(key)), frame.bytes)
        return len(frame) + _FRAME_COST
