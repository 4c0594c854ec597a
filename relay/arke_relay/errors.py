"""The exceptions about the start of a relay, and about joins. Others are beside what raises them.

RelayError
├── ConfigurationError     the relay cannot start as configured: one line, exit status 2
│   └── KeyFileError
├── CertificateError       bytes that are not a valid certificate of this network
└── JoinFailed             a join with another relay did not succeed
    ├── JoinRefused        one side refused the other
    └── PeerUnreachable    the connection could not be made, or broke
"""

from __future__ import annotations

from enum import Enum, IntEnum


class RelayError(Exception):
    """Base class."""


class ConfigurationError(RelayError):
    """The relay cannot start as configured. The text is one line that names the fix."""


class KeyFileError(ConfigurationError):
    """A file given with `-rsa` cannot be used."""


class RefusalCode(IntEnum):
    """Why a relay refuses another one. The number travels in REFUSED; it never changes."""

    UNKNOWN = 0
    """The peer sent a code that this version does not have."""
    MALFORMED_MESSAGE = 1
    UNEXPECTED_MESSAGE = 2
    """A message of another kind than the one awaited, or after the end of the join."""
    UNSUPPORTED_VERSION = 3
    JOIN_TIMED_OUT = 4
    MALFORMED_CERTIFICATE = 5
    UNTRUSTED_KEY = 6
    """None of the verifier's RSA keys signed the certificate."""
    WRONG_NETWORK = 7
    WRONG_ROLE = 8
    """A responder's certificate from an initiator, or the reverse."""
    WRONG_VERIFIER = 9
    """The certificate was made for another relay."""
    WRONG_NONCE = 10
    """The certificate was made for another join."""
    WRONG_CURVE_KEY = 11
    """The certificate vouches for another key than the connection's."""
    CONNECTED_TO_SELF = 12
    MALFORMED_NODE_INFO = 13
    CURVE_KEY_IN_USE = 14
    """The CURVE key is admitted for another node."""
    NODE_ID_IN_USE = 15
    """The node is admitted with another CURVE key."""
    TOO_MANY_PEERS = 16
    TOO_MANY_JOINS = 17
    SHUTTING_DOWN = 18


class CertificateError(RelayError):
    """A certificate is malformed, too long, or fails a check."""

    def __init__(self, code: RefusalCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class JoinFailed(RelayError):
    """A join did not succeed."""

    @property
    def reason(self) -> str:
        """The cause as a log value, for example `untrusted_key`."""
        raise NotImplementedError


class JoinRefused(JoinFailed):
    """One side of a join refused the other.

    `by_peer` says which side: the other relay, or this one. `text` is printable and for people
    only.
    """

    def __init__(self, code: RefusalCode, text: str, *, by_peer: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.by_peer = by_peer

    @property
    def reason(self) -> str:
        return self.code.name.lower()


class ConnectionFailure(Enum):
    """Why the connection to another relay could not be made, or broke."""

    CONNECTION_REFUSED = "connection_refused"
    """The connection was rejected at once: usually no process listens on the port."""
    NO_ROUTE = "no_route"
    """This machine's kernel could not start the connection."""
    TIMED_OUT = "timed_out"
    CONNECTION_LOST = "connection_lost"
    NOT_ADMITTED = "not_admitted"
    """The peer's ZAP handler rejected this relay's CURVE key."""
    WRONG_NETWORK_OR_KEY = "wrong_network_or_key"
    """The CURVE handshake failed: the peer has another network name or RSA key."""
    SOCKET_ERROR = "socket_error"
    """A local error, for example no free descriptor."""


class PeerUnreachable(JoinFailed):
    """The connection to another relay could not be made, or broke before the join ended."""

    def __init__(self, failure: ConnectionFailure, text: str = "") -> None:
        super().__init__(text or failure.value)
        self.failure = failure

    @property
    def reason(self) -> str:
        return self.failure.value
