"""Record what a balancer warns of."""

from __future__ import annotations

from collections.abc import Hashable


class RecordedWarnings(list[str]):
    """Takes the place of `arke_proxy.log.warn_limited`; keeps each event as text."""

    def __call__(self, key: Hashable, message: str, /, **fields: object) -> None:
        self.append(" ".join([message, *(f"{name}={value}" for name, value in fields.items())]))
