"""The targets by name. Each is a module of this package."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from fuzz.target import Target

NAMES = ("native", "iris", "peer", "certificate", "mdns", "link")
CORPUS = Path(__file__).resolve().parent / "corpus"
"""A folder for each target. An input named `found-…` once caused a finding."""


def load(name: str) -> Target:
    target: Target = import_module(f"fuzz.{name}").TARGET
    return target
