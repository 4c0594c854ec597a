"""The proxy's log."""

from __future__ import annotations

import logging

from arke.program.logging import Log
from arke.program.logging import configure as configure_logging

_CLOSED_TLS_CONNECTION = "SSL connection is closed"

log = Log(logging.getLogger("arke_proxy"))


def configure(level: str, format: str) -> None:  # noqa: A002  as the flag
    """Set up logging for this process.

    asyncio logs a line for each write to a TLS connection that the client has just closed. A client
    could flood the log with it, so it is filtered out. The writer cannot avoid it: until the
    loop reports that the connection is lost, the transport looks open.
    """
    configure_logging("arke_proxy", level, format)
    logging.getLogger("asyncio").addFilter(lambda record: record.msg != _CLOSED_TLS_CONNECTION)
