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

from arke_relay.attachments.greeting import Greeting
from arke_relay.attachments.hub import Hub
from arke_relay.errors import ConfigurationError
from arke_relay.log import Log

_BACKLOG = 512
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_NO_IPV6 = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class Doors:
    """Opens what is asked for; raises ConfigurationError with the mend."""

    def __init__(self, loop: asyncio.AbstractEventLoop, hub: Hub, log: Log) -> None:
        self._loop = loop
        self._hub = hub
        self._log = log
        self._servers: list[asyncio.Server] = []
        self._path: Path | None = None

    async def open_port(self, port: int) -> None:
        """Listen on 127.0.0.1 and, where there is IPv6, on ::1."""
        for host in ("127.0.0.1", "::1"):
            try:
                server = await self._loop.create_server(
                    lambda: Greeting(self._hub, self._loop), host, port, backlog=_BACKLOG
                )
            except OSError as error:
                if host == "::1" and error.errno in _NO_IPV6:
                    continue
                raise ConfigurationError(
                    f"port {port} on {host} cannot be opened ({os.strerror(error.errno or 0)}): "
                    "stop what uses it, or choose another with -port"
                ) from error
            self._servers.append(server)

    async def open_socket(self, path: Path) -> None:
        """Listen on a Unix socket that only this user, and root, may use."""
        _clear(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        except OSError as error:
            listener.close()
            raise ConfigurationError(
                f"-socket {path} cannot be opened ({os.strerror(error.errno or 0)}): "
                "choose a path in a folder of yours that nothing else uses"
            ) from error
        finally:
            os.umask(mask)
        self._path = path
        self._servers.append(
            await self._loop.create_unix_server(
                lambda: _Checked(self._hub, self._loop), sock=listener, backlog=_BACKLOG
            )
        )

    def close(self) -> None:
        """Accept nobody any more; who is attached stays."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None


class _Checked(Greeting):
    """A connection over the Unix socket: guarded by the file's mode and by the kernel's word."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made = cast("socket.socket", transport.get_extra_info("socket"))
        packed = made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user, _ = _CREDENTIALS.unpack(packed)
        super().connection_made(transport)
        if user not in {0, os.getuid()}:
            self._hub.refused(f"user {user} may not use this socket")
            self.abort()


def _clear(path: Path) -> None:
    """Remove a socket that a killed relay left behind."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode) and not _answers(path):
            path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
        return True
