"""`python -m fuzz.minimise TARGET`: what a run kept joins the corpus, as far as it reaches more.

The inputs of the corpus stay, and those that reach a line nobody reached before come to them, the
shortest first.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz.finding import Finding
from fuzz.targets import CORPUS, load

_MOST = 40  # files of one target
_WORTH = 3  # steps that are worth a file
_OURS = ("/arke/", "/arke_relay/")

Step = tuple[str, int, int]


class Reached:
    """The steps from line to line that an input takes through our code."""

    def __init__(self) -> None:
        self.steps: set[Step] = set()
        self._last = 0

    def __call__(self, frame: FrameType, kind: str, _: Any) -> Any:
        path = frame.f_code.co_filename
        if not any(part in path for part in _OURS):
            return None
        if kind == "line":
            self.steps.add((path, self._last, frame.f_lineno))
        self._last = frame.f_lineno
        return self


def reached(name: str, data: bytes) -> set[Step]:
    tracer = Reached()
    sys.settrace(tracer)
    try:
        load(name).run(data)
    except Finding:
        return set()
    finally:
        sys.settrace(None)
    return tracer.steps


def main() -> None:
    name = sys.argv[1]
    corpus = CORPUS / name
    known: set[Step] = set()
    count = 0
    for path in sorted(corpus.iterdir()):
        known |= reached(name, path.read_bytes())
        count += 1
    kept = Path(__file__).resolve().parent / ".kept" / name
    for path in sorted(kept.iterdir(), key=lambda path: (path.stat().st_size, path.name)):
        if count >= _MOST:
            break
        data = path.read_bytes()
        more = reached(name, data) - known
        if len(more) >= _WORTH:
            known |= more
            count += 1
            (corpus / sha256(data).hexdigest()[:16]).write_bytes(data)
    sys.stdout.write(f"{name}: {count} inputs, {len(known)} steps\n")


if __name__ == "__main__":
    main()
