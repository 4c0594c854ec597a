"""The relay's admin pages: `/metrics`, `/healthz` and `/readyz`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus

from arke.program.admin import AdminServer, Page
from arke.program.logging import Log
from arke_relay.errors import ConfigurationError
from arke_relay.metrics.exposition import CONTENT_TYPE, Exposition
from arke_relay.metrics.names import TakeSnapshot


class MetricsServer:
    """Serves the pages. `unready` returns why the relay is not ready, or None."""

    def __init__(
        self,
        take_snapshot: TakeSnapshot,
        unready: Callable[[], str | None],
        log: Log,
        names: Iterable[str] = (),
    ) -> None:
        self._exposition = Exposition(take_snapshot)
        self._unready = unready
        pages = {"/metrics": self._metrics, "/healthz": self._health, "/readyz": self._readiness}
        self._server = AdminServer(pages, log, names=names)

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen, and return the address. Raises ConfigurationError if that fails."""
        try:
            return await self._server.listen(host, port)
        except OSError as error:
            raise ConfigurationError(
                f"-metrics: cannot listen on {host}:{port} ({error.strerror or error}): "
                "choose another address or port"
            ) from error

    async def stop(self) -> None:
        """Close the listener and all connections."""
        await self._server.stop()

    async def _metrics(self) -> Page:
        return Page(HTTPStatus.OK, self._exposition.render(), CONTENT_TYPE)

    async def _health(self) -> Page:
        return Page.text(HTTPStatus.OK)

    async def _readiness(self) -> Page:
        reason = self._unready()
        status = HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK
        return Page.text(status, reason)
