"""Everything the relay raises on purpose.

RelayError
├── ConfigurationError     what the operator gave cannot work: one line, exit status 2
│   └── KeyFileError
├── CertificateError       bytes that are no certificate of this network
└── JoinRefused            a relay that may not become a peer
"""

from __future__ import annotations


class RelayError(Exception):
    """The root of the tree."""


class ConfigurationError(RelayError):
    """The relay cannot start as configured; the text is one line that names the mend."""


class KeyFileError(ConfigurationError):
    """The file given with `-rsa` cannot be used."""


class CertificateError(RelayError):
    """A certificate that is malformed, out of bounds, or signed by none of our keys."""


class JoinRefused(RelayError):
    """The other side of a join is not admitted, or does not admit us.

    `reason` is printable text for the log and, from a responder, for the initiator.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
