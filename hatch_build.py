"""Compiles what handles each message: mypyc makes machine code of the same typed sources.

A wheel holds both, and Python takes the compiled ones. Where there is no C compiler, or no headers
of Python, the wheel is made all the same; what it holds is slower. `python hatch_build.py` compiles
into the source folders, for a checkout that is installed as editable.

What is compiled takes its types at their word. An attribute that has just been set is what it was
set to, whatever was called since; a variable keeps one type, that of an exception's name too; what
is Final cannot be patched; a class that is not compiled cannot inherit from one that is. Tests run
the compiled modules (`make test`) and the sources (`make test-pure`).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from mypyc.build import mypycify
from setuptools import Distribution
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

_ROOT = Path(__file__).parent
# What handles each message and each request. The rest stays as it is: it would win nothing, and
# each module takes seconds to compile.
_COMPILED = {
    "sdk/arke/runtime": "deadlines dispatch relay_connection resend",
    "sdk/arke/wire": "chunked_body flow_scheduler liveness outbox reassembly transit_time "
    "tunnel_batch",
    "relay/arke_relay/attachments": "connection fair_reader",
    "relay/arke_relay/attachments/iris": "connection",
    "relay/arke_relay/attachments/native": "broadcasts connection fields requests",
    "relay/arke_relay/core": "balancer broadcasts counters directed_request directory endpoints "
    "routed_request router",
    "proxy/arke_proxy/backends": "address connect connection pool",
    "proxy/arke_proxy/balancing": "ask balancer fallback members passive_health prefetch "
    "recent_backends retry rotation routes static sticky",
    "proxy/arke_proxy/clients": "graceful_close http1_connection http2_connection http2_stream "
    "tls_buffer",
    "proxy/arke_proxy/connections": "deadlines hub reset write_batch",
    "proxy/arke_proxy/http": "error_pages exchange forwarded header_fields messages "
    "request_target response_handler websocket",
    "proxy/arke_proxy/http1": "body field_parser head_buffer head_parser serializer",
    "proxy/arke_proxy/http2": "abuse_limits header_fields",
    "proxy/arke_proxy/observability": "log_throttle request_record",
}
_FOLDERS = {"arke": "sdk", "arke_relay": "relay", "arke_proxy": "proxy"}  # of each package
_LIBRARY = "arke"  # holds the code of all these modules


class NotCompiled(Exception):
    """Why it could not be done, and the mend, in one line."""


class CustomBuildHook(BuildHookInterface[Any]):
    """Adds the compiled modules to a wheel, which is then one for this platform and this Python."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        self._folder = tempfile.TemporaryDirectory()  # until the wheel is packed
        try:
            libraries = compile_modules(Path(self._folder.name))
        except NotCompiled as error:
            self.app.display_warning(str(error))
            return
        for library, place in libraries.items():
            build_data["force_include"][str(library)] = place
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        if version != "editable":
            self._folder.cleanup()


def compile_modules(folder: Path) -> dict[Path, str]:
    """Compile into a folder; return each library, and where in a wheel it belongs.

    Raises NotCompiled.
    """
    os.environ["MYPYPATH"] = ":".join(str(_ROOT / name) for name in _FOLDERS.values())
    os.chdir(_ROOT)
    sources = [f"{place}/{name}.py" for place, names in _COMPILED.items() for name in names.split()]
    # What Arke depends on need not be there while it is built. `make check` is stricter.
    flags = ["--ignore-missing-imports", "--follow-imports=silent", "--config-file="]
    try:
        extensions = mypycify(
            [*flags, *sources],
            group_name=_LIBRARY,
            target_dir=str(folder / "c"),
            opt_level="2",
            multi_file=True,
            debug_level="0",
        )
    except SystemExit:  # which is how it ends where it has printed what it finds wrong
        raise NotCompiled(
            "Not compiled, for the sources are not what this mypy takes: everything works, but "
            "slower. The mend: the mypy that pyproject.toml names"
        ) from None
    command = build_ext(Distribution({"ext_modules": extensions}))
    command.build_lib = str(folder / "lib")
    command.build_temp = str(folder / "temp")
    command.ensure_finalized()
    try:
        command.run()
    except (BaseError, CCompilerError) as error:
        raise NotCompiled(
            f"Not compiled ({error}): everything works, but slower. "
            "The mend: apt install gcc python3-dev"
        ) from None
    built = folder / "lib"
    return {path: str(path.relative_to(built)) for path in built.rglob("*.so")}


def main() -> None:
    """Compile into the source folders, in the place of what was compiled there before."""
    for name in _FOLDERS.values():
        for library in (_ROOT / name).rglob("*.so"):
            library.unlink()
    with tempfile.TemporaryDirectory() as folder:
        try:
            libraries = compile_modules(Path(folder))
        except NotCompiled as error:
            sys.exit(str(error))
        for library, place in libraries.items():
            shutil.copy(library, _ROOT / _FOLDERS.get(Path(place).parts[0], "sdk") / place)


if __name__ == "__main__":
    main()
