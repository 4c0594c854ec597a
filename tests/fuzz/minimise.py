"""`python -m fuzz.minimise TARGET`: add kept inputs to the corpus if they cover more code.

The inputs of the corpus stay. An input of earlier runs is added if it covers new lines; the
shortest ones are tried first.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz.finding import Finding
from fuzz.targets import CORPORA, CORPUS, load

_MAX_ENTRIES = 40  # files for each target
_MIN_NEW_STEPS = 3  # new steps that justify a file
_OUR_CODE = ("/arke/", "/arke_relay/")

Step = tuple[str, int, int]


class CoverageTracer:
    """Record the steps from line to line that an input takes through Arke's code."""

    def __init__(self) -> None:
        self.steps: set[Step] = set()
        self._last = 0

    def __call__(self, frame: FrameType, kind: str, _: Any) -> Any:
        path = frame.f_code.co_filename
        if not any(part in path for part in _OUR_CODE):
            return None
        if kind == "line":
            self.steps.add((path, self._last, frame.f_lineno))
        self._last = frame.f_lineno
        return self


def covered_steps(name: str, data: bytes) -> set[Step]:
    tracer = CoverageTracer()
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
    corpus = CORPUS / CORPORA[name]
    known: set[Step] = set()
    count = 0
    for path in sorted(corpus.iterdir()):
        known |= covered_steps(name, path.read_bytes())
        count += 1
    kept = Path(__file__).resolve().parent / ".kept" / name
    for path in sorted(kept.iterdir(), key=lambda path: (path.stat().st_size, path.name)):
        if count >= _MAX_ENTRIES:
            break
        data = path.read_bytes()
        more = covered_steps(name, data) - known
        if len(more) >= _MIN_NEW_STEPS:
            known |= more
            count += 1
            (corpus / sha256(data).hexdigest()[:16]).write_bytes(data)
    sys.stdout.write(f"{name}: {count} inputs, {len(known)} steps\n")


if __name__ == "__main__":
    main()
