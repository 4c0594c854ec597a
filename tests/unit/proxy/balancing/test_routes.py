from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke_proxy.balancing.rotation import Rotation
from arke_proxy.balancing.routes import Pattern, Route, Routes, parse_route


def route(name: str) -> Route:
    return Route(name, Rotation(name, lambda *_, **__: None))


def routes(*texts: str, default: str | None = None) -> Routes:
    patterns = [parse_route(text) for text in texts]
    return Routes(
        route(default) if default else None, {pattern: route(name) for pattern, name in patterns}
    )


def find_cluster(table: Routes, host: bytes | None, target: bytes) -> str | None:
    route = table.find(host, target)
    return route and route.cluster


TABLE = routes(
    "shop.example=shop",
    "shop.example/api=api",
    "shop.example/api/v2/=new",
    "/static=files",
    "[::1]=six",
    default="rest",
)


@pytest.mark.parametrize(
    ("host", "target", "cluster"),
    [
        (b"shop.example", b"/", "shop"),
        (b"SHOP.Example:8080", b"/", "shop"),
        (b"shop.example.", b"/", "shop"),
        (b"shop.example.:80", b"/", "shop"),
        (b"shop.example", b"/api", "api"),
        (b"shop.example", b"/api?v2", "api"),
        (b"shop.example", b"/api/", "api"),
        (b"shop.example", b"/api/v1/users", "api"),
        (b"shop.example", b"/apis", "shop"),
        (b"shop.example", b"/API", "shop"),
        (b"shop.example", b"/x/api", "shop"),
        (b"shop.example", b"/api/v2", "new"),
        (b"shop.example", b"/api/v2/a/b/c?/api", "new"),
        (b"shop.example", b"/api/v20", "api"),
        (b"shop.example", b"/static/x", "shop"),  # routes of the host take precedence
        (b"shop.example", b"http://shop.example/api", "api"),
        (b"shop.example", b"http://shop.example", "shop"),
        (b"shop.example", b"*", "shop"),
        (b"other.example", b"/static/x", "files"),
        (b"other.example", b"/staticx", "rest"),
        (b"other.example", b"/", "rest"),
        (b"[::1]", b"/", "six"),
        (b"[::1]:80", b"/", "six"),
        (b"", b"/static", "files"),
        (None, b"/static", "files"),
        (None, b"/", "rest"),
    ],
)
def test_route_matches_host_then_longest_path(
    host: bytes | None, target: bytes, cluster: str
) -> None:
    assert find_cluster(TABLE, host, target) == cluster


def test_request_without_matching_route_has_no_cluster() -> None:
    table = routes("shop.example/api=api")
    assert find_cluster(table, b"shop.example", b"/api/x") == "api"
    assert find_cluster(table, b"shop.example", b"/") is None
    assert find_cluster(table, b"other.example", b"/api") is None


@pytest.mark.parametrize("text", ["*=web", "=web", "/=web", "*/=web"])
def test_route_for_any_host_and_path(text: str) -> None:
    assert parse_route(text) == (Pattern(b"", b""), "web")
    assert find_cluster(routes(text), b"any", b"/thing") == "web"


@pytest.mark.parametrize(
    "text", ["", "web", "shop.example", "shop.example=", "a b=c", "a:80=c", "a/ü=c", "a/?x=c"]
)
def test_invalid_route_flag_raises(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_route(text)


def test_routes_are_listed_once() -> None:
    shared = route("web")
    table = Routes(shared, {Pattern(b"a", b""): shared, Pattern(b"b", b""): route("b")})
    assert sorted(route.cluster for route in table) == ["b", "web"]


SEGMENTS = st.lists(st.sampled_from(["", "a", "b", "ab"]), max_size=5)


@given(st.lists(SEGMENTS, min_size=1, max_size=6), SEGMENTS)
def test_longest_path_prefix_by_segments_matches(
    prefixes: list[list[str]], segments: list[str]
) -> None:
    paths = {"".join(f"/{part}" for part in parts).rstrip("/") for parts in prefixes}
    table = routes(*(f"h{path}={path or '/'}" for path in paths))
    target = "".join(f"/{part}" for part in segments) or "/"
    prefixes_of_target = [path for path in paths if target == path or target.startswith(f"{path}/")]
    expected = (max(prefixes_of_target, key=len) or "/") if prefixes_of_target else None
    assert find_cluster(table, b"h", target.encode()) == expected
