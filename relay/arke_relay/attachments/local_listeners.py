"""Where programs attach: the loopback port, and a Unix socket where hosts are shared."""

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

from arke.program.logging import Log
from arke_relay.attachments.acceptor import Acceptor, keep_descriptors
from arke_relay.attachments.program_registry import ProgramRegistry
from arke_relay.attachments.protocol_detection import ProtocolDetector
from arke_relay.errors import ConfigurationError

_BACKLOG = 512
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_LIVE = 1.0  # seconds in which a living relay takes a connection
_NO_IPV6 = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class LocalListeners:
    """Opens what is asked for; raises ConfigurationError with the mend."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, registry: ProgramRegistry, log: Log
    ) -> None:
        self._loop = loop
        self._registry = registry
        self._log = log
        self._acceptors: list[Acceptor] = []
        self._path: Path | None = None
        keep_descriptors()

    async def open_port(self, port: int) -> None:
        """Listen on 127.0.0.1 and, where there is IPv6, on ::1."""
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            try:
                listener = _bound(family, host, port)
            except OSError as error:
                if host == "::1" and error.errno in _NO_IPV6:
                    continue
                raise ConfigurationError(
                    f"port {port} on {host} cannot be opened ({error.strerror}): "
                    "stop what uses it, or choose another with -port"
                ) from error
            self._listen(listener, ProtocolDetector)

    async def open_socket(self, path: Path) -> None:
        """Listen on a Unix socket that only this user, and root, may use."""
        try:
            _clear(path)
        except OSError as error:
            raise _not_opened(path, error) from error
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        except OSError as error:
            listener.close()
            raise _not_opened(path, error) from error
        finally:
            os.umask(mask)
        self._path = path
        self._listen(listener, _Checked)

    def close(self) -> None:
        """Accept nobody any more; who is attached stays."""
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors.clear()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None

    def _listen(self, listener: socket.socket, detector: type[ProtocolDetector]) -> None:
        acceptor = Acceptor(
            self._loop, listener, _BACKLOG, lambda: detector(self._registry, self._loop)
        )
        self._acceptors.append(acceptor)


class _Checked(ProtocolDetector):
    """A connection over the Unix socket: guarded by the file's mode and by the kernel's word."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made = cast("socket.socket", transport.get_extra_info("socket"))
        packed = made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user, _ = _CREDENTIALS.unpack(packed)
        super().connection_made(transport)
        if user not in {0, os.getuid()}:
            self._registry.refused(f"user {user} may not use this socket")
            self.abort()


def _bound(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _not_opened(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"-socket {path} cannot be opened ({error.strerror or error}): "
        "choose a path in a folder of yours that nothing else uses"
    )


def _clear(path: Path) -> None:
    """Remove a socket that a killed relay left behind."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode) and not _answers(path):
            path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_LIVE)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True  # full, or not ours to use: somebody is there
        return True
