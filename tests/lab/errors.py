"""The exceptions of the lab."""

from __future__ import annotations


class LabError(Exception):
    """An operation of the lab failed."""


class LabUnavailable(LabError):
    """This machine does not allow namespaces, or lacks iproute2 or util-linux."""
