"""One end of a tunnel: messages in order, each way as fast as the other end reads, and no faster.

Each end grants the other credit in octets, as its reader makes room. Small messages share a piece
of data, as MessagePack binaries; larger ones are cut into pieces of their own. A message that
outgrows the window goes on getting credit while it is joined, up to the largest that its receiver
takes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from msgpack import Packer

from arke.errors import MessageTooLarge, TunnelClosed
from arke.runtime.relay_connection import RelayLink
from arke.wire.limits import CHUNK, FANOUT_BATCH
from arke.wire.messages import Op, TunnelClose
from arke.wire.tunnel_batch import TunnelBatchDecoder

_DATA = Op.DATA.value
_CREDIT = Op.CREDIT.value
_END = Op.END.value

_SMALL = 4096  # octets of a message that shares its data with others
_HEADER = 5  # octets that MessagePack puts before a binary, at most
_BREATH = 256 * 1024  # octets that a sender may send before others on its loop get their turn
_DRAIN = 30.0  # seconds that closing waits for those who are sending
_TEXT = 4096  # characters of a reason


class Tunnel:
    """Made by `mesh.tunnel`, or handed to a service's `on_tunnel`.

    One task at a time may receive; any number may send. After the end of the block, or of the
    handler, what was sent still arrives.
    """

    def __init__(
        self,
        link: RelayLink,
        name: int,
        window: int,
        largest: int,
        theirs: int,
        forget: Callable[[int], None],
        sender: str,
        headers: Mapping[str, str],
    ) -> None:
        self.sender = sender
        """Who opened it, as `node/program`; empty at the end that did."""
        self.headers = headers
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._name = name
        self._window = window
        self._largest = largest
        self._theirs = theirs
        self._forget = forget
        self._broken: TunnelClosed | None = None

        self._pack = Packer().pack
        self._small = min(_SMALL, theirs)
        self._credit = 0
        self._packed: list[bytes] = []
        self._packed_size = 0
        self._since_breath = 0
        self._slow = False  # somebody waits to send, or must not
        self._sender_turn = asyncio.Lock()
        self._creditor: asyncio.Future[None] | None = None
        self._sent_all = False
        self._unheard = False  # the other end reads nothing more

        self._opened = TunnelBatchDecoder()
        self._pieces: deque[tuple[bytes, bool, int]] = deque()  # data, is it packed, paid for
        self._messages: deque[bytes] = deque()
        self._half = bytearray()
        self._total = 0
        self._paid = 0  # octets of the half message that were granted again before it was read
        self._granted = window
        self._consumed = 0
        self._reader: asyncio.Future[None] | None = None
        self._heard_all = False
        self.when_unheard: Callable[[], object] | None = None
        """Called when the other end reads nothing more."""
        link.send((_CREDIT, name, window))

    @property
    def heard(self) -> bool:
        """Whether the other end still reads what is sent."""
        return not self._unheard and self._broken is None

    @property
    def _over(self) -> bool:
        """Nothing more can be sent."""
        return self._sent_all or self._unheard or self._broken is not None

    # Sending.

    async def send(self, message: bytes) -> None:
        """Send one message; returns once it is on its way, after waiting for credit if it must.

        Raises TunnelClosed, or MessageTooLarge for more than the other end takes. A large message
        whose sending is cancelled never arrives, and the next one does.
        """
        if type(message) is not bytes:
            raise TypeError(f"a message is bytes, not {type(message).__name__}")
        size = len(message)
        if self._slow or size > self._small or size + _HEADER > self._credit:
            await self._send_slowly(message)
            return
        self._put(message)

    def close_send(self) -> None:
        """Send nothing more: the other end's iteration ends behind what was sent."""
        if not self._sent_all and self._broken is None:
            self._flush()
            self._sent_all = self._slow = True
            if not self._unheard:
                self._link.send_part(
                    (_END, self._name, TunnelClose.SEND_CLOSED.value, "", ""), self
                )
            if self._heard_all:
                self._forget(self._name)

    async def close(self) -> None:
        """End both directions; what was sent still arrives, what was not read is gone."""
        try:
            async with asyncio.timeout(_DRAIN), self._sender_turn:
                self._close()  # behind whoever is in the middle of a message
        except TimeoutError:
            self.abort(f"the other end has read nothing for {_DRAIN:g} s")

    def _close(self) -> None:
        if self._broken is None:
            self._flush()
            if not self._unheard:
                self._link.send_part((_END, self._name, TunnelClose.CLOSED.value, "", ""), self)
            self._broken = TunnelClosed("it was closed at this end")
            self._end()

    def abort(self, text: str, kind: str = "") -> None:
        """End both directions at once: what is under way may be lost, and the other end is told."""
        if self._broken is None:
            self._packed.clear()
            self._link.drop_flow(self)
            message = (_END, self._name, TunnelClose.ABORTED.value, kind, text[:_TEXT])
            self._link.send_part(message, self)
            self._broken = TunnelClosed(text)
            self._end()

    def _put(self, message: bytes) -> None:
        pack = self._pack
        data = pack(message)
        if not self._packed:
            self._loop.call_soon(self._flush)
        self._packed.append(data)
        size = len(data)
        self._credit -= size
        self._packed_size += size
        if self._packed_size >= FANOUT_BATCH:
            self._flush()

    def _flush(self) -> None:
        packed = self._packed
        if packed:
            data = packed[0] if len(packed) == 1 else b"".join(packed)
            packed.clear()
            self._packed_size = 0
            self._send_piece(None, data)

    def _send_piece(self, total: int | None, data: bytes) -> None:
        send_part = self._link.send_part
        send_part((_DATA, self._name, total, data), self)
        self._since_breath += len(data)
        if self._since_breath >= _BREATH:
            self._slow = True

    async def _send_slowly(self, message: bytes) -> None:
        async with self._sender_turn:
            self._check_sending()
            size = len(message)
            if size > self._theirs:
                raise MessageTooLarge(f"{size} bytes are over the {self._theirs} of the other end")
            if self._since_breath >= _BREATH:
                self._since_breath = 0
                await asyncio.sleep(0)
            self._slow = True
            try:
                if size <= _SMALL:
                    await self._credit_of(size + _HEADER)
                    self._put(message)
                else:
                    await self._send_pieces(message)
            finally:
                self._slow = self._over or self._since_breath >= _BREATH

    async def _send_pieces(self, message: bytes) -> None:
        self._flush()
        # Half a window is always granted in the end, whatever the reader still keeps back.
        most = min(CHUNK, self._window // 2)
        for at in range(0, len(message), most):
            piece = message[at : at + most]
            await self._credit_of(len(piece))
            self._credit -= len(piece)
            self._send_piece(0 if at else len(message), piece)
            if self._since_breath >= _BREATH:
                self._since_breath = 0
                await asyncio.sleep(0)

    async def _credit_of(self, octets: int) -> None:
        """Wait until so much may be sent. Raises TunnelClosed."""
        # It may have ended in the turn that others were given, when nobody waited here to be woken.
        self._check_sending()
        while self._credit < octets:
            self._creditor = self._loop.create_future()
            try:
                await self._creditor
            finally:
                self._creditor = None
            self._check_sending()

    def _check_sending(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._sent_all:
            raise TunnelClosed("its sending side was closed at this end")
        if self._unheard:
            raise TunnelClosed("it was closed at the other end")

    # Receiving.

    async def recv(self) -> bytes:
        """The next message. Raises TunnelClosed at the end, or when the tunnel broke."""
        if not self._messages and not await self._receive():
            raise self._broken or TunnelClosed("the other end has sent all")
        return self._messages.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._messages and not await self._receive():
            if self._broken is not None:
                raise self._broken
            raise StopAsyncIteration
        return self._messages.popleft()

    async def _receive(self) -> bool:
        """Wait until there is a message to take. False: none will come."""
        while not self._messages:
            if self._pieces:
                self._open(*self._pieces.popleft())
                continue
            if self._broken is not None or self._heard_all:
                return False
            if self._reader is not None:
                raise RuntimeError("a tunnel is read by one task at a time")
            self._go_on_joining()
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return True

    def _open(self, data: bytes, packed: bool, paid: int) -> None:
        """Take messages out of a piece, and let the other end send as much again."""
        if packed:
            messages = self._opened.decode(data)
            if messages is None:
                self.abort("what came cannot be understood")
                return
            self._messages.extend(messages)
        else:
            self._messages.append(data)
        self._consumed += len(data) - paid
        if self._consumed >= self._window // 4:
            self._grant(self._consumed)
            self._consumed = 0

    def _grant(self, octets: int) -> None:
        self._granted += octets
        if self._broken is None and not self._heard_all:
            self._link.send((_CREDIT, self._name, octets))

    def _go_on_joining(self) -> None:
        """Let a message come that is larger than the window, where nothing else can be read."""
        missing = self._total - len(self._half)
        if missing and self._granted < min(missing, self._window // 2):
            extra = self._window // 2
            self._paid += extra
            self._grant(extra)

    # What the other end says.

    def on_data(self, total: int | None, data: bytes) -> None:
        self._granted -= len(data)
        if not data or self._granted < 0:
            # Or there would be no end to how much waits here for a reader.
            self.abort("the other end sent more than it was granted, or nothing")
            return
        if self._half and total != 0:
            self._give_up()
        if total is None:
            self._pieces.append((data, True, 0))
        elif total == len(data):
            self._pieces.append((data, False, 0))
        else:
            if total > self._largest:
                self.abort(f"a message of {total} bytes is over the {self._largest} of this end")
                return
            self._total = total or self._total
            self._half += data
            if len(self._half) < self._total:
                if self._reader is not None and not self._pieces:
                    self._go_on_joining()
                return
            if len(self._half) > self._total:
                self.abort("a message is longer than it said")
                return
            self._pieces.append((bytes(self._half), False, self._paid))
            self._half, self._total, self._paid = bytearray(), 0, 0
        self._wake(self._reader)

    def _give_up(self) -> None:
        """The sender gave up a message in the middle: what came of it makes room again."""
        self._consumed += len(self._half) - self._paid
        self._half, self._total, self._paid = bytearray(), 0, 0

    def on_credit(self, octets: int) -> None:
        self._credit += octets
        self._wake(self._creditor)

    def on_end(self, ending: int, kind: str, text: str) -> None:
        if ending == TunnelClose.ABORTED:
            self.break_off(TunnelClosed(text, kind))
            return
        self._heard_all = True
        if ending == TunnelClose.CLOSED:
            self._unheard = self._slow = True
            if self.when_unheard:
                self.when_unheard()
        self._wake(self._reader)
        self._wake(self._creditor)
        if self._unheard or self._sent_all:
            self._forget(self._name)

    def break_off(self, error: TunnelClosed) -> None:
        """Nothing comes or goes any more; what came before can still be read."""
        if self._broken is None:
            self._broken = error
            self._end()
            if self.when_unheard:
                self.when_unheard()

    def _end(self) -> None:
        self._slow = True
        self._wake(self._reader)
        self._wake(self._creditor)
        self._forget(self._name)

    def _wake(self, future: asyncio.Future[None] | None) -> None:
        if future is not None and not future.done():
            future.set_result(None)

    # As a block.

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self.close()
        else:
            self.abort(str(error), type(error).__name__)
