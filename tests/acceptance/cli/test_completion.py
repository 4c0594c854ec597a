"""`arke completion`: each shell loads the script and completes commands, flags and values."""

from __future__ import annotations

import subprocess

import pytest

from support.needs import require_tool
from support.programs import program
from support.waiting import LIMIT

CASES = [
    ("arke", "arke req", "request"),
    ("arke", "arke request -time", "-timeout"),
    ("arke", "arke bench request -infl", "-inflight"),
    ("relay", "relay -log-l", "-log-level"),
    ("relay", "relay -log-level deb", "debug"),
    ("proxy", "proxy --choose sta", "static"),
]

# Bash calls the completion function with the command, the word and the word before it.
BASH = """
source /dev/stdin
read -ra COMP_WORDS <<< "$1"
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_shtab_$2 "$2" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
echo "${COMPREPLY[@]}"
"""


def run(*words: str, script: str = "") -> str:
    done = subprocess.run(
        words, input=script, capture_output=True, text=True, timeout=LIMIT, check=True
    )
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def scripts() -> dict[str, str]:
    return {shell: run(*program("arke"), "completion", shell) for shell in ("bash", "zsh", "fish")}


@pytest.mark.parametrize(("command", "line", "completed"), CASES)
def test_bash_completes(scripts: dict[str, str], command: str, line: str, completed: str) -> None:
    bash = require_tool("bash", "bash")
    assert run(bash, "-c", BASH, "bash", line, command, script=scripts["bash"]).split() == [
        completed
    ]


@pytest.mark.parametrize(("command", "line", "completed"), CASES)
def test_fish_completes(scripts: dict[str, str], command: str, line: str, completed: str) -> None:
    fish = require_tool("fish", "fish")
    assert command in line
    code = f"source; complete -C '{line}'"
    shown = run(fish, "--no-config", "-c", code, script=scripts["fish"])
    assert completed in {row.partition("\t")[0] for row in shown.splitlines()}


def test_zsh_accepts_the_script_and_registers_each_command(scripts: dict[str, str]) -> None:
    zsh = require_tool("zsh", "zsh")
    code = 'autoload -Uz compinit; compinit -D; eval "$(cat)"; print $_comps[arke] $_comps[proxy]'
    assert run(zsh, "-fc", code, script=scripts["zsh"]).split() == ["_shtab_arke", "_shtab_proxy"]


def test_an_unknown_shell_is_one_line() -> None:
    done = subprocess.run(
        [*program("arke"), "completion", "tcl"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "arke: SHELL must be bash, zsh or fish (got tcl)\n"
