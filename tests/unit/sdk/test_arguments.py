"""Mistakes in a call raise at the call, with the value and the fix."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from typing import Any, get_type_hints

import pytest

import arke
from arke.runtime.arguments import (
    check_body,
    check_headers,
    check_name,
    check_timeout,
    check_tunnel_sizes,
)


@pytest.mark.parametrize("timeout", ["5s", None, b"5", [5]])
def test_timeout_that_is_not_a_number_raises_type_error(timeout: Any) -> None:
    with pytest.raises(
        TypeError, match=r"timeout must be a number of seconds, like 5\.0"
    ) as caught:
        check_timeout(timeout)
    assert repr(timeout) in str(caught.value)


@pytest.mark.parametrize("timeout", [-1, -0.001, math.inf, math.nan, 7 * 24 * 3600 + 1])
def test_timeout_out_of_range_raises_value_error(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout must be between 0 and 604800 seconds"):
        check_timeout(timeout)


@pytest.mark.parametrize("timeout", [0, 5, 0.25, 7 * 24 * 3600])
def test_timeout_may_be_an_integer_or_a_float(timeout: float) -> None:
    check_timeout(timeout)


@pytest.mark.parametrize(
    ("body", "fix"),
    [("text", "use .encode()"), (bytearray(b"x"), "bytes()"), (memoryview(b"x"), "bytes()")],
)
def test_body_that_is_not_bytes_names_the_fix(body: Any, fix: str) -> None:
    with pytest.raises(
        TypeError, match=f"body must be bytes .got {type(body).__name__}."
    ) as caught:
        check_body(body)
    assert fix in str(caught.value)


@pytest.mark.parametrize("name", ["", "é" * 128, None, b"echo", "\ud800"])
def test_invalid_name_raises_value_error(name: Any) -> None:
    with pytest.raises(ValueError, match="the name of a topic must be text of 1 to 255 bytes"):
        check_name(name, "topic")


@pytest.mark.parametrize("headers", [{"a": 1}, {1: "a"}, {"a": "x" * 101}])
def test_invalid_headers_raise_value_error(headers: Any) -> None:
    with pytest.raises(ValueError, match="headers must"):
        check_headers(headers, "headers", 100)


def test_too_many_headers_raise_value_error() -> None:
    with pytest.raises(ValueError, match=r"at most 64 entries \(got 65\)"):
        check_headers({str(number): "" for number in range(65)}, "headers", 1000)


def test_tunnel_sizes_have_a_minimum() -> None:
    with pytest.raises(ValueError, match=r"window must be at least 65536 bytes \(got 10\)"):
        check_tunnel_sizes(10, 1)
    with pytest.raises(ValueError, match=r"max_message must be at least 1 byte \(got 0\)"):
        check_tunnel_sizes(65536, 0)


@pytest.mark.parametrize("timeout", ["5s", None])
async def test_every_call_checks_its_timeout(timeout: Any) -> None:  # noqa: ASYNC109
    mesh = arke.connect()
    with pytest.raises(TypeError, match="timeout must be a number"):
        await mesh.request("echo", b"", timeout=timeout)
    with pytest.raises(TypeError, match="timeout must be a number"):
        mesh.begin_request("echo", b"", timeout=timeout)
    with pytest.raises(TypeError, match="timeout must be a number"):
        await mesh.request_all("echo", b"", timeout=timeout)
    with pytest.raises(TypeError, match="timeout must be a number"):
        await anext(mesh.request_many("echo", b"", timeout=timeout))
    with pytest.raises(TypeError, match="timeout must be a number"):
        await mesh.http_tunnel("node/1", timeout=timeout)
    with pytest.raises(TypeError, match="timeout must be a number"):
        async with mesh.tunnel("echo", timeout=timeout):
            pass


def test_service_rejects_a_second_handler() -> None:
    service = arke.Service("echo")

    @service.on_request
    async def first(request: arke.Request) -> bytes:
        return request.body

    with pytest.raises(RuntimeError, match=r"on_request already has the handler .*first"):

        @service.on_request
        async def second(request: arke.Request) -> bytes:
            return request.body


def test_repr_of_an_unopened_mesh_and_service() -> None:
    assert repr(arke.connect()) == "<arke.Mesh not open>"
    assert repr(arke.Service("echo")) == "<arke.Service 'echo' on <arke.Mesh not open>>"
    assert repr(arke.blocking.connect()) == "<arke.blocking.Mesh not open>"


@pytest.mark.parametrize("method", [arke.Mesh.request_many, arke.Mesh.watch])
def test_iterations_are_typed_as_generators_for_aclosing(method: Any) -> None:
    hints = get_type_hints(method)
    assert hints["return"].__origin__ is AsyncGenerator
