"""Check the arguments of public calls, so that mistakes raise at the call and name the fix."""

from __future__ import annotations

from collections.abc import Mapping

from arke.errors import MessageTooLarge
from arke.wire.limits import MAX_MAP_ENTRIES, MAX_NAME, MAX_TIMEOUT, MIN_WINDOW, is_name


def check_timeout(timeout: float) -> None:
    """Raise TypeError for what is not a number, and ValueError for one out of range."""
    try:
        valid = 0 <= timeout <= MAX_TIMEOUT
    except TypeError:
        raise TypeError(
            f"timeout must be a number of seconds, like 5.0 (got {timeout!r})"
        ) from None
    if not valid:
        raise ValueError(f"timeout must be between 0 and {MAX_TIMEOUT:g} seconds (got {timeout})")


def check_body(body: bytes, what: str = "body") -> None:
    """Raise TypeError for what is not `bytes`."""
    if type(body) is not bytes:
        fix = "use .encode()" if type(body).__name__ == "str" else "convert it with bytes()"
        raise TypeError(f"{what} must be bytes (got {type(body).__name__}); {fix}")


def check_name(name: str, what: str) -> None:
    """Raise ValueError for what cannot name a cluster, a topic or a member."""
    if not is_name(name):
        raise ValueError(
            f"the name of a {what} must be text of 1 to {MAX_NAME} bytes (got {name!r:.60})"
        )


def check_headers(given: Mapping[str, str], what: str, max_size: int) -> dict[str, str]:
    """Copy headers or metadata. Raises ValueError for other values than text, or too many."""
    size = 0
    for key, value in given.items():
        if type(key) is not str or type(value) is not str:
            raise ValueError(f"{what} must map text to text (got {key!r:.60}: {value!r:.60})")
        size += len(key.encode()) + len(value.encode())
    if size > max_size:
        raise ValueError(f"{what} must not exceed {max_size} bytes (got {size})")
    if len(given) > MAX_MAP_ENTRIES:
        raise ValueError(f"{what} must have at most {MAX_MAP_ENTRIES} entries (got {len(given)})")
    return dict(given)


def check_tunnel_sizes(window: int, max_message: int) -> None:
    """Raise ValueError for sizes that are too small."""
    if window < MIN_WINDOW:
        raise ValueError(f"window must be at least {MIN_WINDOW} bytes (got {window})")
    if max_message < 1:
        raise ValueError(f"max_message must be at least 1 byte (got {max_message})")


def too_large(body: bytes, max_message: int) -> MessageTooLarge:
    """Create the error for a body over the relay's limit."""
    return MessageTooLarge(f"the body has {len(body)} bytes; the relay's limit is {max_message}")
