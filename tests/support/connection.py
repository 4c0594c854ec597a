"""A TCP connection in blocking calls: the client, or a scripted backend."""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import suppress
from http.client import HTTPResponse

from support.waiting import LIMIT

RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


class Connection:
    """One end of a TCP connection, in blocking calls that all end within the limit."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""
        sock.settimeout(LIMIT)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def limit_buffers(self) -> None:
        """Keep the kernel from growing this end's buffers.

        By default they grow up to net.ipv4.tcp_rmem and tcp_wmem, 32 MiB on some machines, and the
        peer's receive buffer grows with what this end has in flight.
        """
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            self.sock.setsockopt(socket.SOL_SOCKET, option, 128 * 1024)

    def send_until_stalled(self, data: bytes, patience: float) -> int:
        """Send until the peer reads nothing for `patience` seconds. Returns the bytes sent."""
        sent = 0
        self.sock.settimeout(patience)
        try:
            while sent < len(data):
                sent += self.sock.send(memoryview(data)[sent : sent + 65536])
        except TimeoutError:
            pass
        self.sock.settimeout(LIMIT)
        return sent

    def read_head(self) -> bytes:
        """Read one head; b"" at the end of the connection."""
        return self.read_until(b"\r\n\r\n")

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            data = self.sock.recv(65536)
            if not data:
                return b""
            self._buffer += data
        end = self._buffer.index(mark) + len(mark)
        taken, self._buffer = self._buffer[:end], self._buffer[end:]
        return taken

    def read_exactly(self, size: int) -> bytes:
        pieces = [self._buffer]
        missing = size - len(self._buffer)
        while missing > 0:
            data = self.sock.recv(65536)
            assert data, f"the connection ended {missing} bytes too early"
            pieces.append(data)
            missing -= len(data)
        held = b"".join(pieces)
        taken, self._buffer = held[:size], held[size:]
        return taken

    def read_to_end(self) -> bytes:
        """Read until the other side closes the connection. Raises ConnectionResetError."""
        while data := self.sock.recv(65536):
            self._buffer += data
        taken, self._buffer = self._buffer, b""
        return taken

    def read_response(self, method: str = "GET") -> tuple[HTTPResponse, bytes]:
        """Read one response with http.client; the connection must have no buffered data."""
        assert not self._buffer
        response = HTTPResponse(self.sock, method=method)
        response.begin()
        return response, response.read()

    def close(self) -> None:
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.sock.close()


def connect_tls(port: int, context: ssl.SSLContext, name: str) -> Connection:
    plain = socket.create_connection(("127.0.0.1", port), LIMIT)
    try:
        # An end without a TLS close_notify is an error, as for a browser.
        sock = context.wrap_socket(plain, server_hostname=name, suppress_ragged_eofs=False)
    except OSError:
        plain.close()
        raise
    return Connection(sock)
