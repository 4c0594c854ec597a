"""The targets, by name: each is a module of this package."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from fuzz.target import Target

NAMES = ("native", "iris", "peer", "certificate", "mdns", "link")
CORPUS = Path(__file__).resolve().parent / "corpus"
"""A folder for each target. What is named `found-…` once broke a promise."""


def load(name: str) -> Target:
    target: Target = import_module(f"fuzz.{name}").TARGET
    return target
