"""Command lines that run the project's console scripts from this checkout."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
_SCRIPTS = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "scripts"
]


def program(name: str) -> list[str]:
    """Return the command line that runs `relay`, `proxy` or `arke` from this checkout."""
    module, function = _SCRIPTS[name].split(":")
    return [sys.executable, "-c", f"import sys, {module}; sys.exit({module}.{function}())"]
