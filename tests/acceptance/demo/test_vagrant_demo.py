"""The demo of `vagrant/` on three hosts of the lab: its units' very commands, one visitor."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from lab import Lab
from support.programs import CHECKOUT, program
from support.vagrant_files import command, nodes

LIMIT = 60.0

# Refreshes until both backends have responded, then counts the backends of 100 responses.
VISIT = """
import json, sys, time, urllib.request
deadline = time.monotonic() + float(sys.argv[2])

def page():
    with urllib.request.urlopen(sys.argv[1], timeout=10) as answer:
        return answer.read().decode()

seen, trouble = set(), None
while len(seen) < 2:
    try:
        seen.add(page())
    except OSError as error:
        trouble = error
        time.sleep(0.1)
    if time.monotonic() > deadline:
        sys.exit(f"backends that responded within {sys.argv[2]} s: {seen}; last error: {trouble}")
print(json.dumps([page() for _ in range(100)]))
"""


def on_this_machine(words: list[str], key: Path) -> list[str]:
    """Return a unit's command with the three places that provisioning fills replaced by ours."""
    executable, *arguments = words
    name = executable.removeprefix("/opt/arke/bin/")
    places = {
        "/opt/arke/demo-httpserver": str(CHECKOUT / "demo-httpserver"),
        "/etc/arke/id_rsa": str(key),
    }
    for there, here in places.items():
        arguments = [word.replace(there, here) for word in arguments]
    return [*([sys.executable] if name == "python" else program(name)), *arguments]


@pytest.mark.parametrize("lab", [4], indirect=True)
def test_both_backends_answer_a_hundred_refreshes(lab: Lab, tmp_path: Path) -> None:
    *machines, visitor = lab.hosts
    key = tmp_path / "id_rsa"
    visitor.run([*program("arke"), "keygen", key])
    for machine in machines:
        for unit in nodes()[machine.address]:
            machine.start(on_this_machine(command(unit), key))

    url = "http://192.168.56.101:8080/hello/alice"
    done = visitor.run([sys.executable, "-c", VISIT, url, str(LIMIT)], limit=2 * LIMIT)
    answers = Counter(json.loads(done.stdout))

    pages = [f"hello, alice!\nhello, 192.168.56.{n}!\n" for n in (102, 103)]
    assert set(answers) == set(pages)
    assert all(answers[page] >= 30 for page in pages), answers
