"""Record the warnings of a balancer."""

from __future__ import annotations

from collections.abc import Hashable


class RecordedWarnings(list[str]):
    """Replaces `arke_proxy.log.warn_limited`; records each event as text."""

    def __call__(self, key: Hashable, message: str, /, **fields: object) -> None:
        self.append(" ".join([message, *(f"{name}={value}" for name, value in fields.items())]))
