"""Report what the handlers of a service raise: to the log and to `on_error`."""

from __future__ import annotations

import logging
from traceback import format_exception

from arke.program.log_throttle import LogThrottle
from arke.request import Request
from arke.runtime.error_text import error_type
from arke.runtime.service_handlers import ErrorHandler
from arke.tunnel import Tunnel
from arke.values import Broadcast

log = logging.getLogger("arke")

_LOG_SECONDS = 1.0
_TIMEOUT_LOG_SECONDS = 10.0


class HandlerErrors:
    """Logs each kind of error with its traceback once a second, and calls `on_error` for each.

    `on_error` gets the exception, and the Request, Broadcast or Tunnel that was handled.
    """

    def __init__(self, cluster: str, on_error: ErrorHandler | None) -> None:
        self._cluster = cluster
        self._on_error = on_error
        self._throttle = LogThrottle()

    def report(
        self, handler: str, error: BaseException, handled: Request | Broadcast | Tunnel
    ) -> None:
        """Report an exception of the request, multipart, broadcast or tunnel handler."""
        suppressed = self._throttle.admit((handler, type(error)), _LOG_SECONDS)
        if suppressed is not None:
            more = f" ({suppressed} more like it were not logged)" if suppressed else ""
            trace = "".join(format_exception(error))
            encodable = trace.encode(errors="backslashreplace").decode()
            # The log's handler would raise for a lone surrogate in the traceback.
            known = error if trace == encodable else None
            if known is None:
                more += f"\n{encodable}"
            log.error(
                "the %s handler of service %r raised %s%s",
                handler,
                self._cluster,
                error_type(error),
                more,
                exc_info=known,
            )
        if self._on_error:
            try:
                self._on_error(error, handled)
            except Exception:
                log.exception("on_error of service %r raised", self._cluster)

    def report_timeout(self) -> None:
        """Report a request handler that still ran at its deadline."""
        suppressed = self._throttle.admit("timeout", _TIMEOUT_LOG_SECONDS)
        if suppressed is not None:
            log.warning(
                "service %r: %d request handlers still ran at the deadline of their requests",
                self._cluster,
                suppressed + 1,
            )
