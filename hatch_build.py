"""Compile the hot modules with mypyc when a wheel is built.

A wheel contains the compiled modules and their sources; Python prefers the compiled ones. Without a
C compiler or Python's headers the wheel contains only the sources, which are slower.
`python hatch_build.py` compiles into the source folders of an editable checkout.

Compiled code trusts its type annotations. After an attribute is set, it is assumed to have that
value whatever is called in between. A variable has one type in a function, also as the name of an
exception. A Final name cannot be patched. A class that is not compiled cannot inherit from a
compiled one. `make test` tests the compiled modules, `make test-pure` the sources.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from mypyc.build import mypycify
from setuptools import Distribution
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

_ROOT = Path(__file__).parent
# The modules that handle each message and each request. Others would gain nothing, and each module
# takes seconds to compile.
_COMPILED = {
    "sdk/arke/runtime": "broadcast_dispatch deadlines relay_connection request_dispatch "
    "request_sender resend",
    "sdk/arke/wire": "chunked_body flow_scheduler liveness outbox reassembly transit_time "
    "tunnel_batch",
    "relay/arke_relay/attachments": "connection fair_reader",
    "relay/arke_relay/attachments/iris": "connection",
    "relay/arke_relay/attachments/native": "broadcasts connection fields requests",
    "relay/arke_relay/core": "balancer broadcasts counters directed_request directory endpoints "
    "routed_request router",
    "proxy/arke_proxy": "context",
    "proxy/arke_proxy/backends": "address connection connector pool",
    "proxy/arke_proxy/balancing": "ask_balancer balancer fallback_balancer members_balancer "
    "panic_mode passive_health power_of_two prefetch recent_backends retry rotation "
    "rotation_entry routes slow_start static_balancer sticky_cookies",
    "proxy/arke_proxy/clients": "http1_connection http2_connection http2_stream",
    "proxy/arke_proxy/connections": "client_registry client_state deadlines "
    "graceful_close reset timeouts tls_buffer write_batch",
    "proxy/arke_proxy/http": "attempts error_pages exchange forwarded header_fields messages "
    "request_body request_target response_handler websocket",
    "proxy/arke_proxy/http1": "body field_parser head_buffer head_parser serializer",
    "proxy/arke_proxy/http2": "abuse_limits header_fields response_state",
    "proxy/arke_proxy/observability": "request_record",
}
_FOLDERS = {"arke": "sdk", "arke_relay": "relay", "arke_proxy": "proxy"}  # of each package
_LIBRARY = "arke"  # the shared library with the code of all modules


class CompileError(Exception):
    """The modules cannot be compiled; the text is one line with the reason and the fix."""


class CustomBuildHook(BuildHookInterface[Any]):
    """Adds the compiled modules to a wheel, which then fits this platform and Python only."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        self._folder = tempfile.TemporaryDirectory()  # until the wheel is packed
        try:
            libraries = compile_modules(Path(self._folder.name))
        except CompileError as error:
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
    """Compile into a folder; return each shared library and its path in the wheel.

    Raises CompileError.
    """
    os.environ["MYPYPATH"] = ":".join(str(_ROOT / name) for name in _FOLDERS.values())
    os.chdir(_ROOT)
    sources = [f"{place}/{name}.py" for place, names in _COMPILED.items() for name in names.split()]
    # The dependencies need not be installed in the build environment; `make check` is stricter.
    flags = ["--ignore-missing-imports", "--follow-imports=silent", "--config-file="]
    _show_progress(f"compiling: mypyc translates {len(sources)} modules to C")
    try:
        extensions = mypycify(
            [*flags, *sources],
            group_name=_LIBRARY,
            target_dir=str(folder / "c"),
            opt_level="2",
            multi_file=True,
            debug_level="0",
        )
    except SystemExit:  # mypyc has printed its errors
        raise CompileError(
            "Not compiled: this version of mypy rejects the sources. Everything works, but slower. "
            "Fix: install the mypy version that pyproject.toml names"
        ) from None
    command = _BuildExtension(Distribution({"ext_modules": extensions}))
    command.build_lib = str(folder / "lib")
    command.build_temp = str(folder / "temp")
    command.ensure_finalized()
    try:
        command.run()
    except (BaseError, CCompilerError) as error:
        raise CompileError(
            f"Not compiled ({error}). Everything works, but slower. "
            "Fix: apt install gcc python3-dev"
        ) from None
    finally:
        _end_progress()
    built = folder / "lib"
    return {path: str(path.relative_to(built)) for path in built.rglob("*.so")}


class _BuildExtension(build_ext):
    """Shows how many of the C files are compiled."""

    def build_extensions(self) -> None:
        compile_file: Callable[..., None] = self.compiler._compile  # noqa: SLF001  the only hook
        total = sum(len(extension.sources) for extension in self.extensions)
        count = 0

        def compile_and_count(target: str, source: str, *arguments: Any) -> None:
            nonlocal count
            count += 1
            _show_progress(f"compiling: C file {count} of {total}")
            compile_file(target, source, *arguments)

        self.compiler._compile = compile_and_count  # noqa: SLF001
        super().build_extensions()


def _show_progress(text: str) -> None:
    """Replace the last line of a terminal; write a line to anything else."""
    sys.stderr.write(f"\r{text}\x1b[K" if sys.stderr.isatty() else f"{text}\n")
    sys.stderr.flush()


def _end_progress() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\n")


def main() -> None:
    """Compile into the source folders; replace what was compiled there before."""
    for name in _FOLDERS.values():
        for library in (_ROOT / name).rglob("*.so"):
            library.unlink()
    with tempfile.TemporaryDirectory() as folder:
        try:
            libraries = compile_modules(Path(folder))
        except CompileError as error:
            sys.exit(str(error))
        for library, place in libraries.items():
            shutil.copy(library, _ROOT / _FOLDERS.get(Path(place).parts[0], "sdk") / place)


if __name__ == "__main__":
    main()
