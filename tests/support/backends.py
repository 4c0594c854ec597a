"""Backends that send the raw bytes that a test gives them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from support.connection import Connection
from support.waiting import LIMIT

GET = b"GET / HTTP/1.1\r\nHost: example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


Script = Callable[[Connection], None]


def respond_always(answer: bytes) -> Script:
    """A script that sends this response to every request."""

    def script(connection: Connection) -> None:
        while connection.read_head():
            connection.send(answer)

    return script


def respond_ok(connection: Connection) -> None:
    """A script that responds with OK to requests without a body."""
    while connection.read_head():
        connection.send(OK)


def respond_with(body: str, status: str = "200 OK") -> Script:
    """A script that sends this response to every request in one write."""
    answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    def script(connection: Connection) -> None:
        while connection.read_head():
            connection.send(answer)

    return script


class Backend:
    """A server of raw bytes: it runs `script` for each connection in a separate thread.

    A script that returns closes its connection; what it raises fails the test.
    """

    def __init__(self, script: Script, host: str = "127.0.0.1", port: int = 0) -> None:
        self._script = script
        self._listener = socket.create_server((host, port))
        self._connections: list[Connection] = []
        self._threads: list[threading.Thread] = []
        self._failures: list[Exception] = []
        self.address = f"{host}:{self._listener.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    @property
    def connections(self) -> int:
        """Number of accepted connections."""
        return len(self._connections)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            connection = Connection(sock)
            self._connections.append(connection)
            thread = threading.Thread(target=self._run, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _run(self, connection: Connection) -> None:
        try:
            self._script(connection)
        except (ConnectionError, BrokenPipeError):
            pass  # the proxy closed the connection; the test checks that at the client
        except Exception as error:  # noqa: BLE001 — shown by `end`
            self._failures.append(error)
        finally:
            connection.close()

    def stop_listening(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(LIMIT)

    def stop(self) -> None:
        self.stop_listening()
        for connection in self._connections:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(LIMIT)
            assert not thread.is_alive()
        if self._failures:
            raise ExceptionGroup("a backend's script failed", self._failures)
