"""The targets by name. Each is a module of this package."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from fuzz.target import Target

CORPORA = {
    "native": "native",
    "iris": "iris",
    "peer": "peer",
    "certificate": "certificate",
    "mdns": "mdns",
    "link": "link",
    "forwarding_native": "native",
    "forwarding_iris": "iris",
}
"""The folder of each target's corpus."""

NAMES = tuple(CORPORA)
CORPUS = Path(__file__).resolve().parent / "corpus"
"""The folders of inputs. An input named `found-…` once caused a finding."""


def load(name: str) -> Target:
    target: Target = import_module(f"fuzz.{name}").TARGET
    return target


def inputs(name: str) -> list[Path]:
    """Return the inputs of a target's corpus."""
    return sorted((CORPUS / CORPORA[name]).iterdir())
