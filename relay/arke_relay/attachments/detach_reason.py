"""Why a program's connection ends."""

from __future__ import annotations

from enum import StrEnum


class DetachReason(StrEnum):
    """A log value. A program that the relay disconnects gets its detail, or `DETACH_TEXTS`."""

    CLOSED_BY_PROGRAM = "closed_by_program"
    CONNECTION_LOST = "connection_lost"
    TIMED_OUT = "timed_out"
    """Neither traffic nor a reply to PING."""
    STALLED = "stalled"
    """The program does not read, and its queue is full."""
    REATTACHED = "reattached"
    """The program has attached again on another connection."""
    PROTOCOL_ERROR = "protocol_error"
    """It sent something that is not a valid message."""
    NOT_ALLOWED = "not_allowed"
    """It sent a valid message that is not allowed then, for example registered twice."""
    TOO_MANY_TOPICS = "too_many_topics"
    UNSUPPORTED_VERSION = "unsupported_version"
    RELAY_STOPPING = "relay_stopping"
    INTERNAL_ERROR = "internal_error"


DETACH_TEXTS = {
    DetachReason.STALLED: "the program does not read its messages",
    DetachReason.REATTACHED: "the program has attached again on another connection",
    DetachReason.TOO_MANY_TOPICS: "the programs of this node subscribe to too many topics, and "
    "this program to most of them",
    DetachReason.RELAY_STOPPING: "the relay is shutting down",
}
"""The text that is sent for a reason without a detail."""


class UnsupportedVersion(Exception):
    """A program's HELLO names a version of its protocol that this relay does not speak."""
