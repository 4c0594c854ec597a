"""Clients that send one request after another on persistent connections; no request may fail."""

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
Script = Callable[["Load", Connection], None]


class Load:
    """Connections that each send one request after another until they are stopped.

    They send POST, which the proxy must not retry, so that a lost request is seen.
    """

    def __init__(self, connect: Connect, script: Script, connections: int) -> None:
        self._connect = connect
        self._script = script
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
        """Wait for `more` further responses."""
        goal = self.responses + more
        wait_until(lambda: self.responses >= goal or bool(self.failures))

    def wait_for_connections(self, more: int) -> None:
        """Wait for `more` further connections."""
        goal = self.connections + more
        wait_until(lambda: self.connections >= goal or bool(self.failures))

    def _run(self) -> None:
        while not self.stopped and not self.failures:
            try:
                connection = self._connect()
                self.connections += 1
                try:
                    self._script(self, connection)
                finally:
                    connection.close()
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))


def http1_requests(load: Load, connection: Connection) -> None:
    """Send requests until the proxy closes the connection after a response."""
    while not load.stopped:
        connection.send(_POST)
        response, body = connection.read_response()
        assert (response.status, body) == (200, b"ok"), (response.status, body)
        load.responses += 1
        if response.getheader("connection") == "close":
            return


def http1_single_requests(load: Load, connection: Connection) -> None:
    """Send one request over a new TLS connection."""
    connection.send(_POST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    response, body = connection.read_response()
    assert (response.status, body) == (200, b"ok"), (response.status, body)
    load.responses += 1


def http2_requests(load: Load, connection: Connection) -> None:
    """Send two requests at a time until the proxy sends GOAWAY."""
    client = RawHttp2(connection)
    stream = 1
    while not load.stopped:
        pair = (stream, stream + 2)
        for one in pair:
            client.send(client.headers(one, _FIELDS), DataFrame(one, b"body", flags=["END_STREAM"]))
        if _read_until_goaway(load, client, set(pair)):
            return
        stream += 4


def _read_until_goaway(load: Load, client: RawHttp2, waiting: set[int]) -> bool:
    """Read the responses. Returns whether the connection accepts no more requests.

    Streams that GOAWAY or REFUSED_STREAM reject were not processed: they do not count as lost.
    """
    goaway = False
    while waiting:
        frame = client.read_frame()
        stream = frame.stream_id
        if isinstance(frame, GoAwayFrame):
            assert frame.error_code == 0, frame
            goaway = True
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
    return goaway


def answer_posts(connection: Connection) -> None:
    """A script for backends."""
    while connection.read_head():
        connection.read_exactly(4)
        connection.send(OK)
