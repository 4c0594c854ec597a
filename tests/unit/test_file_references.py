"""Files that are named by path in build settings and patches exist."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator

from support.programs import CHECKOUT
from support.source_tree import tree


def compiled_modules() -> list[str]:
    """Return the paths of the modules that hatch_build.py compiles."""
    for node in tree(CHECKOUT / "hatch_build.py").body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_COMPILED":
            table: dict[str, str] = ast.literal_eval(node.value)
            return [
                f"{place}/{name}.py" for place, names in table.items() for name in names.split()
            ]
    raise AssertionError("hatch_build.py has no _COMPILED")


def alternatives(pattern: str) -> Iterator[str]:
    """Expand the braces of a glob pattern: `a/{b,c}.py` is `a/b.py` and `a/c.py`."""
    if match := re.search(r"\{([^{}]*)\}", pattern):
        for choice in match[1].split(","):
            yield from alternatives(pattern[: match.start()] + choice + pattern[match.end() :])
    else:
        yield pattern


def test_compiled_modules_exist() -> None:
    named = compiled_modules()
    assert len(named) > 20
    assert [name for name in named if not (CHECKOUT / name).is_file()] == []


def test_exception_names_have_one_type_in_each_compiled_function() -> None:
    """mypyc gives a variable the type of its first use, and raises TypeError for another one."""
    mixed = []
    for name in compiled_modules():
        for function in ast.walk(tree(CHECKOUT / name)):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                types: dict[str, set[str]] = {}
                for handler in ast.walk(function):
                    if isinstance(handler, ast.ExceptHandler) and handler.name and handler.type:
                        types.setdefault(handler.name, set()).add(ast.unparse(handler.type))
                mixed += [
                    f"{name}: {function.name}: {variable}"
                    for variable, kinds in types.items()
                    if len(kinds) > 1
                ]
    assert mixed == []


def test_ruff_per_file_ignores_match_files() -> None:
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["ruff"]["lint"]["per-file-ignores"]
    named = [name for pattern in patterns for name in alternatives(pattern)]
    assert [name for name in named if next(CHECKOUT.glob(name), None) is None] == []


def test_files_that_mutant_patches_change_exist() -> None:
    patches = list((CHECKOUT / "tests").glob("*/mutants/*.patch"))
    assert patches
    missing = [
        f"{patch.name}: {name}"
        for patch in patches
        for name in re.findall(r"(?m)^(?:---|\+\+\+) (\S+)", patch.read_text(encoding="utf-8"))
        if not (CHECKOUT / name).is_file()
    ]
    assert missing == []


CREATED = re.compile(
    r"arke keygen (\S+)|-m venv ([^/\s]\S*)|> (\S+\.key)|-keyout (\S+) -out (\S+)",
)
"""Commands in the documentation that create a key, a certificate or an environment."""


def test_git_ignores_the_keys_and_environments_that_the_documentation_creates() -> None:
    pages = [CHECKOUT / "README.md", *(CHECKOUT / "docs").rglob("*.md")]
    created = {
        name
        for page in pages
        for groups in CREATED.findall(page.read_text(encoding="utf-8"))
        for name in groups
        if re.fullmatch(r"[\w.-]*[a-z]\w*", name)
    }
    assert {"id_rsa", "key.pem", "sticky.key", "arke-env"} <= created
    shown = [f"{name}/" if name.endswith("env") else name for name in sorted(created)]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *shown],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    assert ignored == shown


def test_demo_lock_is_a_part_of_the_main_lock() -> None:
    lock = (CHECKOUT / "requirements.lock").read_text(encoding="utf-8")
    demo = (CHECKOUT / "demo-httpserver/requirements.lock").read_text(encoding="utf-8")
    _, *packages = re.split(r"\n(?=[a-z])", demo.strip())
    assert len(packages) > 10
    assert [package for package in packages if package not in lock] == []
