"""Errors of the proxy, and the codes of failed requests in metrics and logs.

    InvalidCertificate            certificate or key files that cannot be used
    MalformedMessage              a client's or a backend's bytes are not a valid HTTP message
    ProxyError
    ├── BadRequest           4xx  the client's bytes are not a request that can be forwarded
    ├── TlsHandshakeFailed     0  the client did not complete a TLS handshake
    ├── Http2ProtocolError     0  the client's HTTP/2 frames break the protocol, or are a flood
    ├── NoRoute              404  no -route matches, and there is no default cluster
    ├── NoBackend            503  the cluster has no members, or none publishes an address
    ├── ClusterQueryFailed   503  asking the cluster for a backend address failed
    ├── BadClusterReply      502  the cluster's reply is not a backend address
    ├── AllBackendsTried     502  every known backend has been tried for this request
    ├── BackendsUnreachable  502  every attempt failed
    ├── TooManyConnections   503  a limit on connections is reached
    ├── BackendFailed        502  a backend failed, and the request may not be retried
    ├── BadResponse          502  the backend's bytes are not a response that can be forwarded
    └── BackendTimeout       504  no response within the time limit

The text of a ProxyError is for the logs, where it may name backends, members and clusters. Status
0: no response is sent.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class FailureCode(StrEnum):
    """Why a request failed: label `reason` in metrics, `outcome` in the access log.

    The proxy's own responses carry it too, in Server-Timing and in their JSON body.
    """

    BAD_REQUEST = "bad_request"
    MALFORMED_BODY = "malformed_body"
    HTTP2_PROTOCOL_ERROR = "http2_protocol_error"
    TLS_HANDSHAKE_FAILED = "tls_handshake_failed"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    NO_ROUTE = "no_route"
    NO_BACKEND = "no_backend"
    CLUSTER_QUERY_FAILED = "cluster_query_failed"
    BAD_CLUSTER_REPLY = "bad_cluster_reply"
    BACKENDS_UNREACHABLE = "backends_unreachable"
    BACKEND_FAILED = "backend_failed"
    BAD_RESPONSE = "bad_response"
    BACKEND_TIMEOUT = "backend_timeout"
    RESPONSE_ABORTED = "response_aborted"  # the response was reset before its end
    CLIENT_DISCONNECTED = "client_disconnected"


class InvalidCertificate(Exception):
    """Files that do not make a certificate; the text completes "-cert: …"."""


class MalformedMessage(Exception):
    """Bytes that are not an HTTP message that can be forwarded.

    The text completes "The request is rejected: …", or "The response of backend … is rejected: …".
    `status` is the response to a client whose request is rejected.
    """

    def __init__(self, fault: str, status: int = 400) -> None:
        super().__init__(fault)
        self.status = status


class ProxyError(Exception):
    """A request that the proxy answers itself. `status` is the code that the client gets."""

    status = 502
    code: ClassVar[FailureCode]
    public_text: ClassVar[str]
    """The sentence that the client reads."""

    @property
    def page_text(self) -> str:
        return self.public_text


class BadRequest(ProxyError):
    """The client's bytes are not a request that can be forwarded."""

    code = FailureCode.BAD_REQUEST

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status

    @property
    def page_text(self) -> str:
        return str(self)  # it is about the client's own request


class TlsHandshakeFailed(ProxyError):
    """A TLS handshake failed, or did not complete in time. No response can be sent."""

    code = FailureCode.TLS_HANDSHAKE_FAILED
    public_text = ""
    status = 0


class Http2ProtocolError(ProxyError):
    """A client's HTTP/2 frames break the protocol, or are a flood. The connection is closed."""

    code = FailureCode.HTTP2_PROTOCOL_ERROR
    public_text = ""
    status = 0


class NoRoute(ProxyError):
    """No -route matches the request's host and path, and there is no default cluster."""

    code = FailureCode.NO_ROUTE
    public_text = "No route of this proxy matches that host and path."
    status = 404


class NoBackend(ProxyError):
    """The cluster has no members, or none of them publishes an address."""

    code = FailureCode.NO_BACKEND
    public_text = "No backend is available."
    status = 503


class ClusterQueryFailed(ProxyError):
    """Asking the cluster for a backend address failed, or the proxy's relay is not connected."""

    code = FailureCode.CLUSTER_QUERY_FAILED
    public_text = "No backend could be chosen."
    status = 503


class BadClusterReply(ProxyError):
    """The cluster's reply is not a backend address."""

    code = FailureCode.BAD_CLUSTER_REPLY
    public_text = "No backend could be chosen."


class AllBackendsTried(ProxyError):
    """Every known backend has been tried for this request."""

    code = FailureCode.BACKENDS_UNREACHABLE
    public_text = "No backend answered."


class BackendsUnreachable(ProxyError):
    """Every attempt failed: no connection, or the backend closed it before it had answered."""

    code = FailureCode.BACKENDS_UNREACHABLE
    public_text = "No backend answered."


class TooManyConnections(ProxyError):
    """A limit on connections, to clients or to backends, is reached."""

    code = FailureCode.TOO_MANY_CONNECTIONS
    public_text = "The proxy has too many connections."
    status = 503


class BackendFailed(ProxyError):
    """A backend failed after it may have read the request, which may not be retried."""

    code = FailureCode.BACKEND_FAILED
    public_text = "The backend failed."


class BadResponse(ProxyError):
    """The backend's bytes are not a response that can be forwarded."""

    code = FailureCode.BAD_RESPONSE
    public_text = "The backend's response is invalid."


class BackendTimeout(ProxyError):
    """No response came within the time limit."""

    code = FailureCode.BACKEND_TIMEOUT
    public_text = "The backend did not answer in time."
    status = 504
