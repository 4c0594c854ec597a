"""A proxy under test: raw backends that do what a test says, and a cluster that names them."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPResponse
from pathlib import Path

import arke
from lab import Process
from support.programs import program
from support.relays import LIMIT, Relay, Relays, eventually, start

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


class Connection:
    """One end of a TCP connection, in blocking calls that all end within the limit."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._held = b""
        sock.settimeout(LIMIT)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_until_stalled(self, data: bytes, patience: float) -> int:
        """Send what goes, until nothing has gone for so many seconds; return how much that was."""
        sent = 0
        self.sock.settimeout(patience)
        try:
            while sent < len(data):
                sent += self.sock.send(memoryview(data)[sent : sent + 65536])
        except TimeoutError:
            pass
        self.sock.settimeout(LIMIT)
        return sent

    def head(self) -> bytes:
        """Read one head; b"" when there is none before the connection ends."""
        return self.until(b"\r\n\r\n")

    def until(self, mark: bytes) -> bytes:
        while mark not in self._held:
            data = self.sock.recv(65536)
            if not data:
                return b""
            self._held += data
        end = self._held.index(mark) + len(mark)
        taken, self._held = self._held[:end], self._held[end:]
        return taken

    def exactly(self, size: int) -> bytes:
        pieces = [self._held]
        missing = size - len(self._held)
        while missing > 0:
            data = self.sock.recv(65536)
            assert data, f"the connection ended {missing} bytes too early"
            pieces.append(data)
            missing -= len(data)
        held = b"".join(pieces)
        taken, self._held = held[:size], held[size:]
        return taken

    def rest(self) -> bytes:
        """Read until the other side ends the connection in order. Raises ConnectionResetError."""
        while data := self.sock.recv(65536):
            self._held += data
        taken, self._held = self._held, b""
        return taken

    def response(self, method: str = "GET") -> tuple[HTTPResponse, bytes]:
        """Read one response, as Python's own client does, from a connection with nothing held."""
        assert not self._held
        response = HTTPResponse(self.sock, method=method)
        response.begin()
        return response, response.read()

    def close(self) -> None:
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sock.close()


Script = Callable[[Connection], None]


def always(answer: bytes) -> Script:
    """A script that gives this answer to every request."""

    def script(connection: Connection) -> None:
        while connection.head():
            connection.send(answer)

    return script


class Backend:
    """A server of raw bytes: `script` is run for each connection, in a thread of its own.

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
        """How many have been accepted."""
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
            pass  # the proxy cut it, which the test sees from the other side
        except Exception as error:  # noqa: BLE001 — shown by `end`
            self._failures.append(error)
        finally:
            connection.close()

    def stop_listening(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(LIMIT)

    def end(self) -> None:
        self.stop_listening()
        for connection in self._connections:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(LIMIT)
            assert not thread.is_alive()
        if self._failures:
            raise ExceptionGroup("a backend's script failed", self._failures)


class Cluster:
    """One member that names backends; `answers` are given in turn, and an exception is raised.

    Whenever they are set the first one is next.

    The answer "" never comes.
    """

    def __init__(
        self,
        name: str,
        port: int,
        limits: arke.Limits | None = None,
        metadata: Mapping[str, str] | None = None,
        http: str | None = None,
        drain: float = 1.0,
    ) -> None:
        self.name = name
        self._turns: Iterator[str | Exception] = iter(())
        self.asked = 0
        self._answered = -math.inf  # when it last was
        self._port = port
        self._limits = limits
        self._metadata = metadata
        self._http = http
        self._drain = drain
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._registered = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _set_answers(self, answers: Sequence[str | Exception]) -> None:
        self._turns = itertools.cycle(answers)

    answers = property(None, _set_answers)

    def join(self) -> None:
        self._thread.start()
        assert self._registered.wait(LIMIT)

    def settle(self) -> None:
        """Wait until the proxy uses nothing that it asked ahead, and sees no demand to ask again.

        The one takes 50 ms, the other up to 100.
        """
        eventually(lambda: time.monotonic() - self._answered > 0.11)

    def leave(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(LIMIT)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        service = arke.Service(
            self.name,
            port=self._port,
            limits=self._limits,
            metadata=self._metadata,
            http=self._http,
            drain=self._drain,
        )

        @service.on_request
        async def answer(request: arke.Request) -> bytes:
            assert request.body == b"ip"
            self.asked += 1
            self._answered = time.monotonic()
            chosen = next(self._turns)
            if isinstance(chosen, Exception):
                raise chosen
            if not chosen:
                await asyncio.Event().wait()
            return chosen.encode()

        async with service:
            self._registered.set()
            await self._stop.wait()


class Rig:
    """A running proxy, its cluster, and what a test sets up around them."""

    def __init__(self, relay: Relay, cluster: Cluster, *flags: str) -> None:
        self.relay = relay
        self.cluster = cluster
        self._ends: list[Callable[[], None]] = []
        self.process, self.port = start_proxy(relay, cluster.name, *flags)

    def backends(self, *scripts: Script) -> list[Backend]:
        """Start backends that the cluster names from now on, in turn."""
        made = [Backend(script) for script in scripts]
        self._ends += [backend.end for backend in made]
        self.cluster.settle()
        self.cluster.answers = [backend.address for backend in made]
        return made

    def dial(self) -> Connection:
        """Connect; the test ends it."""
        return Connection(socket.create_connection(("127.0.0.1", self.port), LIMIT))

    def connect(self) -> Connection:
        connection = self.dial()
        self._ends.append(connection.close)
        return connection

    def connect_tls(self, context: ssl.SSLContext, name: str) -> Connection:
        """Connect to where -tls-listen said, and ask for `name`."""
        connection = connect_tls(self.tls_port, context, name)
        self._ends.append(connection.close)
        return connection

    def exchange(self, request: bytes, method: str = "GET") -> tuple[HTTPResponse, bytes]:
        """Send one request over a connection of its own."""
        connection = self.connect()
        connection.send(request)
        return connection.response(method)

    def get(self, path: str = "/") -> tuple[HTTPResponse, bytes]:
        return self.exchange(f"GET {path} HTTP/1.1\r\nHost: example\r\n\r\n".encode())

    def tidy(self) -> None:
        """End what the test set up; the proxy goes on."""
        ends, self._ends = self._ends, []
        for end in reversed(ends):
            end()
        self.cluster.settle()

    def end(self) -> None:
        if self.process.running:
            self.process.terminate()
        self.process.wait(LIMIT)
        self.process.close()

    @property
    def tls_port(self) -> int:
        return tls_port(self.process)

    @property
    def memory(self) -> int:
        """Resident bytes of the proxy's workers."""
        return sum(map(resident, workers(self.process)))


def connect_tls(port: int, context: ssl.SSLContext, name: str) -> Connection:
    plain = socket.create_connection(("127.0.0.1", port), LIMIT)
    try:
        # An end without TLS's own goodbye is an error, as it is for a browser.
        sock = context.wrap_socket(plain, server_hostname=name, suppress_ragged_eofs=False)
    except OSError:
        plain.close()
        raise
    return Connection(sock)


def tls_port(proxy: Process) -> int:
    """Where a proxy listens that was given -tls-listen 127.0.0.1:0."""
    match = proxy.wait_for_line(r"listening with TLS on 127\.0\.0\.1:(\d+)", LIMIT)
    return int(match[1])


def workers(proxy: Process) -> list[int]:
    """The numbers of the processes that serve for a proxy, the oldest first."""
    pid = proxy.machine_pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in children.split()]


def resident(pid: int) -> int:
    """The bytes of a process that are in memory."""
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE")


def start_proxy(relay: Relay, cluster: str, *flags: str) -> tuple[Process, int]:
    """Start the real thing on a port of its choice, which is returned once it listens."""
    return start_any_proxy("-cluster", cluster, "-port", str(relay.port), *flags)


def start_any_proxy(*flags: str, descriptors: int | None = None) -> tuple[Process, int]:
    """Start one that has perhaps no default cluster, or no relay, or few `descriptors`."""
    words = [*program("proxy"), "-listen", "127.0.0.1:0", *flags]
    if descriptors:
        words = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *words]
    process = start("proxy", words)
    match = process.wait_for_line(r"proxy listening on 127\.0\.0\.1:(\d+), forwarding", LIMIT)
    return process, int(match[1])


@contextmanager
def standing(folder: Path, *flags: str) -> Iterator[Rig]:
    """A rig on a relay of its own, for all tests of a module."""
    relays = Relays(folder)
    try:
        with running(relays.start(), "web", *flags) as rig:
            yield rig
    finally:
        relays.end()


@contextmanager
def running(
    relay: Relay, name: str, *flags: str, limits: arke.Limits | None = None
) -> Iterator[Rig]:
    """A rig whose cluster has one member."""
    cluster = Cluster(name, relay.port, limits)
    cluster.join()
    try:
        rig = Rig(relay, cluster, *flags)
        try:
            yield rig
        finally:
            rig.tidy()
            rig.end()
    finally:
        cluster.leave()
