"""Copies of the tree with a planted bug, for the checks that simulation and fuzzing find bugs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

CHECKOUT = Path(__file__).parents[2]


class PatchDoesNotApply(Exception):
    """The code that a patch changes has changed: the patch must be written again."""


@contextmanager
def patched_copy(
    folders: Sequence[str], patch: Path | None, *, without: str = ""
) -> Iterator[tuple[Path, dict[str, str]]]:
    """Copy some folders of the checkout and apply the patch to the copy.

    Files whose name matches the pattern `without` are not copied. Yields the copy and the
    environment in which Python imports from it. Raises PatchDoesNotApply.
    """
    with TemporaryDirectory(prefix="arke-mutant-") as name:
        copy = Path(name)
        for folder in folders:
            ignored = shutil.ignore_patterns("__pycache__", without)
            shutil.copytree(CHECKOUT / folder, copy / folder, ignore=ignored)
        if patch:
            apply(patch, copy)
        paths = [copy / "tests", copy / "sdk", copy / "relay"]
        yield copy, os.environ | {"PYTHONPATH": os.pathsep.join(map(os.fspath, paths))}


def apply(patch: Path, tree: Path) -> None:
    """Apply a patch to the tree. Raises PatchDoesNotApply."""
    command = ["git", "apply", "-p0", os.fspath(patch)]
    # git must not take a repository around the copy for the copy's own.
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": os.fspath(tree.parent)}
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PatchDoesNotApply(f"{patch.name} no longer applies: {done.stderr.strip()}")


def apply_to_changed_files(patch: Path, folder: Path) -> None:
    """Copy the files that a patch changes to `folder` and apply it. Raises PatchDoesNotApply."""
    for line in patch.read_text(encoding="utf-8").splitlines():
        if line.startswith("+++ "):
            target = folder / line[4:]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((CHECKOUT / line[4:]).read_bytes())
    apply(patch, folder)
