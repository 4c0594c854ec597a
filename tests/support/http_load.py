"""Clients that send one request after another on connections that stay; none may fail."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, RstStreamFrame

from support.backends import OK
from support.connection import Connection
from support.raw_http2 import POST, RawHttp2
from support.waiting import LIMIT, wait_until

_POST = b"POST / HTTP/1.1\r\nHost: example\r\nContent-Length: 4\r\n\r\nbody"
_FIELDS = [*POST, (b"content-length", b"4")]
_REFUSED_STREAM = 7

Connect = Callable[[], Connection]
Converse = Callable[["Load", Connection], None]


class Load:
    """Connections that each send one request after another until they are stopped.

    They POST, which may not be sent twice: whatever is lost is seen.
    """

    def __init__(self, connect: Connect, converse: Converse, connections: int) -> None:
        self._connect = connect
        self._converse = converse
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(connections)]
        self.responses = 0
        self.connections = 0
        self.failures: list[str] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(LIMIT)
            assert not thread.is_alive()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def wait_for_responses(self, more: int = 50) -> None:
        """Wait for so many further answers."""
        goal = self.responses + more
        wait_until(lambda: self.responses >= goal or bool(self.failures))

    def wait_for_connections(self, more: int) -> None:
        """Wait for so many further connections."""
        goal = self.connections + more
        wait_until(lambda: self.connections >= goal or bool(self.failures))

    def _run(self) -> None:
        while not self.stopped and not self.failures:
            try:
                connection = self._connect()
                self.connections += 1
                try:
                    self._converse(self, connection)
                finally:
                    connection.close()
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))


def http1_requests(load: Load, connection: Connection) -> None:
    """Send requests until the proxy closes the connection after an answer."""
    while not load.stopped:
        connection.send(_POST)
        response, body = connection.read_response()
        assert (response.status, body) == (200, b"ok"), (response.status, body)
        load.responses += 1
        if response.getheader("connection") == "close":
            return


def http1_single_requests(load: Load, connection: Connection) -> None:
    """Send one request: each has a connection, and a handshake, of its own."""
    connection.send(_POST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    response, body = connection.read_response()
    assert (response.status, body) == (200, b"ok"), (response.status, body)
    load.responses += 1


def http2_requests(load: Load, connection: Connection) -> None:
    """Send requests, two at a time, until the proxy says goodbye."""
    client = RawHttp2(connection)
    stream = 1
    while not load.stopped:
        pair = (stream, stream + 2)
        for one in pair:
            client.send(client.headers(one, _FIELDS), DataFrame(one, b"body", flags=["END_STREAM"]))
        if _goodbye(load, client, set(pair)):
            return
        stream += 4


def _goodbye(load: Load, client: RawHttp2, waiting: set[int]) -> bool:
    """Read the answers; True if this connection takes no more requests.

    What a goodbye does not name, and what is refused as a stream, was not taken: that is not lost,
    whoever sent it sends it again.
    """
    goodbye = False
    while waiting:
        frame = client.read_frame()
        stream = frame.stream_id
        if isinstance(frame, GoAwayFrame):
            assert frame.error_code == 0, frame
            goodbye = True
            waiting = {one for one in waiting if one <= frame.last_stream_id}
        elif isinstance(frame, RstStreamFrame) and stream in waiting:
            assert frame.error_code == _REFUSED_STREAM, frame
            waiting.remove(stream)
        elif isinstance(frame, HeadersFrame):
            assert frame.fields[b":status"] == b"200", frame.fields  # type: ignore[attr-defined]
        elif isinstance(frame, DataFrame):
            assert frame.data == b"ok", frame
            waiting.remove(stream)
            load.responses += 1
    return goodbye


def answer_posts(connection: Connection) -> None:
    """A script for backends."""
    while connection.read_head():
        connection.read_exactly(4)
        connection.send(OK)
