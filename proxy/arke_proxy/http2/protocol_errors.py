"""Plain sentences for the errors of the `h2` library, for the log and the access log."""

from __future__ import annotations

from h2.errors import ErrorCodes
from h2.exceptions import (
    DenialOfServiceError,
    FlowControlError,
    FrameDataMissingError,
    FrameTooLargeError,
    InvalidSettingsValueError,
    NoSuchStreamError,
    ProtocolError,
    StreamClosedError,
    StreamIDTooLowError,
)
from hpack.exceptions import HPACKError

# By type, subclasses first. The library's own texts name its internals.
_SENTENCES: tuple[tuple[type[ProtocolError], str], ...] = (
    (FrameTooLargeError, "a frame is too large"),
    (FrameDataMissingError, "a frame is too short"),
    (FlowControlError, "flow control was violated"),
    (StreamIDTooLowError, "a new stream has a lower number than an earlier one"),
    (StreamClosedError, "a frame belongs to a stream that is closed"),
    (NoSuchStreamError, "a frame belongs to a stream that was never opened"),
    (InvalidSettingsValueError, "a setting has an invalid value"),
    (DenialOfServiceError, "a list of header fields is too large"),
)


def describe(error: ProtocolError) -> str:
    """Return what the client did wrong, without a full stop."""
    if isinstance(error.__cause__, HPACKError):
        return "a list of header fields cannot be decompressed"
    for kind, sentence in _SENTENCES:
        if isinstance(error, kind):
            return sentence
    return "a frame is malformed, or not allowed at this point"


def code_name(code: int) -> str:
    """Return the name of an HTTP/2 error code (RFC 9113, 7)."""
    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"error code {code}"
