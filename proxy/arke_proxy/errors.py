"""Everything that ends a request in the proxy, as one tree, and what is raised outside of requests.

    BadCertificate                  files from which TLS cannot be spoken
    Malformed                       bytes that are no message; the parser does not know whose
    ProxyError
    ├── BadRequest        4xx, 5xx  the client's bytes are not a request that can be forwarded
    ├── NoHandshake         —       a client that was to speak TLS did not
    ├── BadFrames           —       a client's frames of HTTP/2 make no sense, or cannot be borne
    ├── NoRoute           404       no cluster serves that name and path
    ├── NoBackEnd         503       nobody serves the cluster
    ├── NotAnswered       503       the cluster was asked, and did not say which backend
    ├── BadAnswer         502       the cluster's answer is no address
    ├── AllTried          502       there is no backend other than those tried
    ├── NoneReachable     502       every backend tried failed
    ├── Exhausted         503       the proxy has as many connections as it may have
    ├── BackEndBroke      502       a backend failed, and the request may not be sent again
    ├── BadResponse       502       the backend's bytes are not a response
    └── TooLate           504       no answer within the time limit

The text of each ProxyError is the sentence that the client reads. A status of 0 is no answer.
"""

from __future__ import annotations

import re

_CAPITAL = re.compile("(?<!^)([A-Z])")


class BadCertificate(Exception):
    """Files that do not make a certificate; the text completes "-cert FILE: …"."""


class Malformed(Exception):
    """Bytes that are no message that can be passed on; the text completes "refused: …".

    `status` is the answer to a client who sent them.
    """

    def __init__(self, fault: str, status: int = 400) -> None:
        super().__init__(fault)
        self.status = status


class ProxyError(Exception):
    """The root of the tree. `status` is the code that the client gets."""

    status = 502

    @property
    def name(self) -> str:
        """What happened, in words: `no backend`."""
        return _CAPITAL.sub(r" \1", type(self).__name__).lower()


class BadRequest(ProxyError):
    """The client's bytes are not a request that can be forwarded."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


class NoHandshake(ProxyError):
    """A handshake of TLS failed, or did not end in time; nobody can be answered."""

    status = 0


class BadFrames(ProxyError):
    """A client's frames of HTTP/2 make no sense, or cannot be borne; they are not answered."""

    status = 0


class NoRoute(ProxyError):
    """No cluster serves that name and path."""

    status = 404


class NoBackend(ProxyError):
    """Nobody serves the cluster."""

    status = 503


class NotAnswered(ProxyError):
    """The cluster was asked for a backend, and did not answer."""

    status = 503


class BadAnswer(ProxyError):
    """The cluster's answer is no address."""


class AllTried(ProxyError):
    """There is no backend other than those already tried."""


class NoneReachable(ProxyError):
    """Every backend tried failed: before it was sent the request, or before it had answered."""


class Exhausted(ProxyError):
    """The proxy has as many connections as it may have."""

    status = 503


class BackendBroke(ProxyError):
    """A backend failed after it may have read the request, which may not be sent again."""


class BadResponse(ProxyError):
    """The backend's bytes are not a response that can be forwarded."""


class TooLate(ProxyError):
    """No answer came within the time limit."""

    status = 504
