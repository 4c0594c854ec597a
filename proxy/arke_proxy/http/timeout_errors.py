"""Which error a client gets when its request has timed out."""

from __future__ import annotations

from arke_proxy.backends.address import BackendAddress
from arke_proxy.errors import BackendTimeout, BadRequest, ProxyError


def timeout_error(
    address: BackendAddress | None,
    seconds: float,
    *,
    backend_silent: bool,
    client_slow: bool,
    total: bool,
) -> ProxyError:
    """Return the error for a request whose response has not started for the client.

    `address`: the backend that has the request; `backend_silent`: the proxy was waiting for it;
    `client_slow`: the client does not read earlier responses; `total`: the limit was that on the
    total time.
    """
    limit = f"{seconds:g} s"
    if address is None:
        return BackendTimeout(f"No backend could be reached within {limit}.")
    if backend_silent:
        return BackendTimeout(f"Backend {address} did not answer within {limit}.")
    if total:
        return BadRequest(f"The request took longer than {limit} in total.", 408)
    if client_slow:  # the backend may have answered
        return BadRequest(f"The client read no responses for {limit}.", 408)
    return BadRequest(f"The request's body stalled for {limit}.", 408)


def stalled_response(seconds: float, *, total: bool) -> str:
    """Describe why a response that had started is aborted.

    The text completes "Backend 192.168.56.102:63450 …".
    """
    if total:
        return f"did not complete the response within {seconds:g} s of the request"
    return f"or the client stalled for {seconds:g} s in the middle of the response"
