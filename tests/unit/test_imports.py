"""Import rules between the packages (docs/architecture.md), checked in the source text."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import arke
from support.source_tree import files, imported_modules, imports, modules, own_imports

IO_MODULES = {"asyncio", "socket", "time", "random", "secrets", "zmq", "os", "threading"}
PUBLIC = {"arke", *(f"arke.{name}" for name in arke.__all__)}

PARENT_AND_CHILD = [
    {"arke_proxy.clients.http2_connection", "arke_proxy.clients.http2_stream"},
    # An endpoint owns its requests and its tunnel ends. They name their endpoint, a request
    # directly and through its candidate.
    {
        "arke_relay.core.endpoints",
        "arke_relay.core.routed_request",
        "arke_relay.core.directory",
        "arke_relay.core.tunnels",
    },
]
"""Modules that may import each other: the class of one owns the objects of the others."""


def in_package(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def violations(folder: str, allowed: Callable[[str], bool]) -> list[str]:
    return [
        f"{file} imports {name}"
        for file in files(folder)
        for name in own_imports(file)
        if not allowed(name)
    ]


def test_sdk_imports_only_itself() -> None:
    assert not violations("sdk/arke", lambda name: in_package(name, "arke"))


def test_relay_imports_only_wire_and_program_of_the_sdk() -> None:
    allowed = ("arke_relay", "arke.wire", "arke.program", "arke.keygen", "arke.__version__")
    assert not violations("relay/arke_relay", lambda name: in_package(name, *allowed))


def test_relay_core_does_no_io() -> None:
    used = {name.split(".")[0] for file in files("relay/arke_relay/core") for name in imports(file)}
    assert not used & IO_MODULES


def test_proxy_and_demo_use_only_the_public_api_and_program() -> None:
    def allowed(name: str) -> bool:
        return name in PUBLIC or in_package(name, "arke_proxy", "arke.program")

    assert not violations("proxy/arke_proxy", allowed)
    assert not violations("demo-httpserver", allowed)


def test_program_imports_only_itself_and_the_limits_of_the_wire() -> None:
    allowed = ("arke.program", "arke.wire.limits", "arke.compiled", "arke.__version__")
    assert not violations("sdk/arke/program", lambda name: in_package(name, *allowed))


def test_modules_do_not_import_each_other_in_cycles() -> None:
    cycles = [sorted(cycle) for cycle in strongly_connected() if cycle not in PARENT_AND_CHILD]
    assert not cycles, "\n".join(map(str, cycles))


def strongly_connected() -> Iterator[set[str]]:
    """Return the groups of modules that import each other (Tarjan's algorithm).

    A package and its modules may import each other.
    """
    graph = {
        module: {
            other
            for other in imported_modules(module)
            if not in_package(module, other) and not in_package(other, module)
        }
        for module in modules()
    }
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in graph[module]:
            if other not in index:
                visit(other)
            if other in stack:
                low[module] = min(low[module], low[other])
        if low[module] == index[module]:
            group = set(stack[stack.index(module) :])
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(group)

    assert len(graph) < sys.getrecursionlimit()
    for module in graph:
        if module not in index:
            visit(module)
    yield from found
