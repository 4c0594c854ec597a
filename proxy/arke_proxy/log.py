"""The proxy's log."""

from __future__ import annotations

import logging
from collections.abc import Hashable

from arke.program.logging import Log
from arke.program.logging import configure as configure_logging

_CLOSED_TLS_CONNECTION = "SSL connection is closed"

_WARNING_INTERVAL = 5.0  # seconds between two warnings with the same key

log = Log(logging.getLogger("arke_proxy"))


def warn_limited(key: Hashable, message: str, /, **fields: object) -> None:
    """Log a warning that clients and backends can trigger: once in five seconds for each key.

    The next one has a field with the number of suppressed warnings.
    """
    log.limited(key, _WARNING_INTERVAL).warning(message, **fields)


def configure(level: str, log_format: str) -> None:
    """Set up logging for this process.

    asyncio logs a line for each write to a TLS connection that the client has just closed. A client
    could flood the log with it, so it is filtered out. The writer cannot avoid it: until the
    loop reports that the connection is lost, the transport looks open.
    """
    configure_logging("arke_proxy", level, log_format)
    logging.getLogger("asyncio").addFilter(lambda record: record.msg != _CLOSED_TLS_CONNECTION)
