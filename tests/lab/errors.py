"""LabError > LabUnavailable."""

from __future__ import annotations


class LabError(Exception):
    """What was asked of the lab did not happen."""


class LabUnavailable(LabError):
    """This machine has no namespaces for us, or lacks iproute2 or util-linux."""
