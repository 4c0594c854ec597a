"""Listen for programs: on the loopback port, and on a Unix socket for shared hosts."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import struct
from pathlib import Path
from typing import cast

from arke_relay.attachments.acceptor import Acceptor, reserve_descriptors
from arke_relay.attachments.context import AttachmentContext
from arke_relay.attachments.pending_handshakes import Rejection
from arke_relay.attachments.protocol_detection import ProtocolDetector
from arke_relay.errors import ConfigurationError

_BACKLOG = 512
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_PROBE_TIMEOUT = 1.0  # seconds in which a running relay accepts a connection
_NO_IPV6 = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class LocalListeners:
    """Opens the port and the socket; raises ConfigurationError with the fix."""

    def __init__(self, loop: asyncio.AbstractEventLoop, context: AttachmentContext) -> None:
        self._loop = loop
        self._context = context
        self._acceptors: list[Acceptor] = []
        self._path: Path | None = None
        reserve_descriptors()

    async def open_port(self, port: int) -> None:
        """Listen on 127.0.0.1 and, if the host has IPv6, on ::1."""
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            try:
                listener = _bound(family, host, port)
            except OSError as error:
                if host == "::1" and error.errno in _NO_IPV6:
                    continue
                raise ConfigurationError(
                    f"cannot listen on port {port} of {host} ({error.strerror}): "
                    "stop the process that uses it, or choose another with -port"
                ) from error
            self._listen(listener, ProtocolDetector)

    async def open_socket(self, path: Path) -> None:
        """Listen on a Unix socket that only this user and root may use."""
        try:
            _clear(path)
        except OSError as error:
            raise _socket_error(path, error) from error
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        except OSError as error:
            listener.close()
            raise _socket_error(path, error) from error
        finally:
            os.umask(mask)
        self._path = path
        self._listen(listener, _UnixSocketDetector)

    def close(self) -> None:
        """Stop accepting; attached programs stay."""
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors.clear()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None

    def _listen(self, listener: socket.socket, detector: type[ProtocolDetector]) -> None:
        acceptor = Acceptor(
            self._loop, listener, _BACKLOG, lambda: detector(self._context, self._loop)
        )
        self._acceptors.append(acceptor)


class _UnixSocketDetector(ProtocolDetector):
    """Checks the user of a connection by the kernel's peer credentials, besides the file mode."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        accepted = cast("socket.socket", transport.get_extra_info("socket"))
        packed = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user, _ = _CREDENTIALS.unpack(packed)
        super().connection_made(transport)
        if user not in {0, os.getuid()}:
            self._reject(Rejection.USER_NOT_ALLOWED, user=user)


def _bound(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _socket_error(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"cannot listen on -socket {path} ({error.strerror or error}): "
        "choose an unused path in a directory that this user can write"
    )


def _clear(path: Path) -> None:
    """Remove the socket of a relay that was killed."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode) and not _is_listening(path):
            path.unlink()


def _is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True  # its backlog is full, or it belongs to another user
        return True
