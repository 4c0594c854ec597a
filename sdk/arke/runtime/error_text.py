"""Convert exceptions to text that can be sent to another program."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Iterator
from itertools import islice

_MAX_TEXT = 4096  # characters
_MAX_SUB_EXCEPTIONS = 10  # whose texts the text of a group contains


def error_type(error: BaseException) -> str:
    """Return the name of an exception's type as text that can be sent."""
    return _sendable(type(error).__name__)


def describe_error(error: BaseException) -> str:
    """Return an exception's text, with the texts of the exceptions in a group."""
    text = _sendable(error)
    if isinstance(error, BaseExceptionGroup):
        leaves = list(islice(_leaves(error), _MAX_SUB_EXCEPTIONS + 1))
        texts = [f"{error_type(leaf)}: {_sendable(leaf)}" for leaf in leaves[:_MAX_SUB_EXCEPTIONS]]
        if len(leaves) > _MAX_SUB_EXCEPTIONS:
            texts.append("…")
        text = f"{text}: {'; '.join(texts)}"
    if isinstance(error, CancelledError) and not text:
        text = "a task that the handler awaited was cancelled"
    return text[:_MAX_TEXT]


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _sendable(value: object) -> str:
    """Convert an exception to text that can be sent: bounded, without lone surrogates."""
    try:
        return str(value)[:_MAX_TEXT].encode(errors="replace").decode()
    except Exception as error:  # noqa: BLE001 — the exception's own __str__ may raise
        return f"unprintable {type(error).__name__}"
