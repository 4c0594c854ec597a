"""Run the commands of a page as a reader does, against relays on loopback addresses.

A comment before a block says what to do with it:

    <!-- run -->                      run it; the next `text` block is what it prints
    <!-- run: on beta -->             the same on another node
    <!-- run: background -->          leave it running
    <!-- run: relay on beta -->       a relay, which joins the relays started before
    <!-- file: greeter.py -->         save it under this name
    <!-- skip: the reason -->         cannot run here

Blocks without a comment are only checked.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from lab import Process
from support.docs_pages import Block, blocks
from support.ports import free_port, loopback_address
from support.processes import start_process
from support.programs import program
from support.waiting import LIMIT

_DIRECTIVE = re.compile(r"<!-- (?P<verb>run|file|skip)(?:: (?P<rest>[^>]+))? -->")


class Step(NamedTuple):
    """A block with its directive. `verb` is empty where it has none."""

    verb: str
    rest: str
    block: Block
    expected: str


def steps(page: Path) -> list[Step]:
    """Return the blocks of a page, each with the output that the page shows for it."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found = list(blocks(page))
    made: list[Step] = []
    for at, block in enumerate(found):
        match = _DIRECTIVE.fullmatch(lines[block.line - 2]) if block.line > 1 else None
        after = found[at + 1] if at + 1 < len(found) else None
        expected = after.text if after and after.language == "text" else ""
        verb, rest = (match["verb"], match["rest"] or "") if match else ("", "")
        made.append(Step(verb, rest, block, expected))
    return made


class Session:
    """The machines of a reader: a folder, and a relay for each node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[Process] = []
        self._addresses: dict[str, str] = {}
        self._ports: dict[str, int] = {}
        self._pages = {"8080": free_port(), "8000": free_port()}
        self._bin = folder / ".bin"
        self._bin.mkdir()
        commands = {name: program(name) for name in ("arke", "relay", "proxy")}
        for name, words in (commands | {"python3": [sys.executable]}).items():
            script = self._bin / name
            script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
            script.chmod(0o755)

    def take(self, step: Step) -> None:
        """Do what the directive of a step says."""
        words = step.rest.split()
        node = words[words.index("on") + 1] if "on" in words else "alpha"
        if step.verb == "file":
            (self.folder / step.rest).write_text(step.block.text, encoding="utf-8")
        elif "relay" in words:
            self._start_relay(step, node)
        elif "background" in words:
            self._start(step, node)
        elif step.verb == "run":
            self._run(step, node)

    def close(self) -> None:
        """Stop the running processes, newest first."""
        for process in reversed(self._processes):
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                process.wait(LIMIT)
            except TimeoutError:
                process.kill()
                process.wait(LIMIT)
            process.close()

    def environ(self, node: str) -> dict[str, str]:
        """Return environment variables that give a node its own free ports and addresses."""
        address = self._addresses.setdefault(node, loopback_address())
        port = self._ports.setdefault(node, free_port())
        others = [f"{other}:55556" for other in self._addresses.values() if other != address]
        return {
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "ARKE_PORT": str(port),
            "ARKE_BIND": address,
            "ARKE_MDNS": "off",
            "ARKE_JOIN": ",".join(others),
            "ARKE_LISTEN": f"127.0.0.1:{self._pages['8080']}",
        }

    def _start_relay(self, step: Step, node: str) -> None:
        process = self._start(step, node)
        process.wait_for_line("relay started", LIMIT)
        deadline = time.monotonic() + LIMIT
        while not shows(process.log, step.expected):
            assert time.monotonic() < deadline, f"{step.block.name}: {process.log}"
            time.sleep(0.05)

    def _start(self, step: Step, node: str) -> Process:
        environ = self.environ(node)
        text = f"cd {shlex.quote(str(self.folder))} && exec {self._adapted(step.block.text, node)}"
        process = start_process(
            f"{node}: {step.block.text.strip()}", ["bash", "-c", text], **environ
        )
        self._processes.append(process)
        return process

    def _run(self, step: Step, node: str) -> None:
        """Run a block. If the page shows its output, repeat until the output matches."""
        deadline = time.monotonic() + LIMIT
        while True:
            done = subprocess.run(
                ["bash", "-e", "-o", "pipefail", "-c", self._adapted(step.block.text, node)],
                cwd=self.folder,
                env=os.environ | self.environ(node),
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=False,
            )
            if step.expected and not shows(done.stdout, step.expected):
                assert time.monotonic() < deadline, self._story(step, done)
                time.sleep(0.1)
                continue
            assert done.returncode == 0, self._story(step, done)
            return

    def _story(self, step: Step, done: subprocess.CompletedProcess[str]) -> str:
        logs = "".join(f"--- {each.name}\n{each.tail()}\n" for each in self._processes)
        return f"{step.block.name}: {done.stdout}{done.stderr}\n{logs}"

    def _adapted(self, text: str, node: str) -> str:
        """Use free ports in place of those that a page names."""
        server = f"{{server}} --bind {self._addresses.get(node)}"
        text = text.strip().replace("http.server 8000", server)
        for shown, port in self._pages.items():
            text = re.sub(rf"(?<=[: ]){shown}\b", str(port), text)
        return text.replace("{server}", f"http.server {self._pages['8000']}")


def shows(output: str, expected: str) -> bool:
    """Say whether the lines of `expected` are in the output, in order; `…` is any text."""
    lines = iter(output.splitlines())
    for line in filter(str.strip, expected.splitlines()):
        parts = (re.escape(part) for part in re.split(r"…|\s+", line.strip()))
        gaps = re.findall(r"…|\s+", line.strip())
        pattern = next(parts, "")
        for gap, part in zip(gaps, parts, strict=True):
            pattern += (".*" if gap == "…" else r"\s+") + part
        if not any(re.fullmatch(pattern, seen.strip()) for seen in lines):
            return False
    return True
