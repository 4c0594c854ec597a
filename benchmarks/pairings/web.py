"""The proxy beside nginx and HAProxy: the same back end, one worker or thread each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import web_servers
from benchmarks.measure import (
    MEGABYTES_PER_SECOND,
    MICROSECONDS,
    RATE,
    Bar,
    Figures,
    Measure,
    Pairing,
    Row,
    Run,
)
from benchmarks.web_loads import at_rate, closed_loop
from benchmarks.web_proxies import arke_proxy
from benchmarks.web_servers import LARGE, SMALL, Proxy, back_end, make_certificate

_WARM = 0.5  # seconds of load before what is measured

Load = Callable[[str, float], Figures]


def through(proxy: Proxy, path: str, load: Load, *, tls: bool = False) -> Run:
    """Return a run of a load on a proxy of its own."""

    def run(seconds: float) -> Figures:
        with tempfile.TemporaryDirectory() as folder, back_end() as port:
            certificate = make_certificate(Path(folder)) if tls else None
            with proxy(port, certificate) as here:
                url = f"{'https' if tls else 'http'}://localhost:{here}{path}"
                closed_loop(url, _WARM)
                return load(url, seconds)

    return run


def half_of_saturation(url: str, seconds: float) -> Figures:
    """Find out how much it can take, then ask for half of that."""
    most = closed_loop(url, seconds)["rate"]
    return at_rate(url, most / 2, seconds)


def _pairing(peer: str, proxy: Proxy, bars: dict[str, Bar], *, only: frozenset[str]) -> Pairing:
    watch, ask = arke_proxy("watch"), arke_proxy("ask")
    measures = (
        ("small", "small answers, watch", "rate", RATE, watch, SMALL, closed_loop, False),
        ("ask", "small answers, ask", "rate", RATE, ask, SMALL, closed_loop, False),
        ("tls", "small answers, TLS 1.3", "rate", RATE, watch, SMALL, closed_loop, True),
        (
            "large",
            "100 KiB answers",
            "octets",
            MEGABYTES_PER_SECOND,
            watch,
            LARGE,
            closed_loop,
            False,
        ),
        (
            "half",
            "p99 at half of saturation",
            "p99_us",
            MICROSECONDS,
            watch,
            SMALL,
            half_of_saturation,
            False,
        ),
    )
    return Pairing(
        title=f"HTTP beside {peer}",
        peer=peer,
        prepare=web_servers.prepare,
        measures=tuple(
            Measure(
                f"{name}-{peer.lower()}",
                (Row(title, figure, unit, bars.get(name)),),
                arke=through(ours, path, load, tls=tls),
                peer=through(proxy, path, load, tls=tls),
            )
            for name, title, figure, unit, ours, path, load, tls in measures
            if name in only
        ),
    )


_RATIOS = {
    "small": Bar("≥", 0.9, "ratio"),
    "ask": Bar("≥", 0.6, "ratio"),
    "tls": Bar("≥", 0.7, "ratio"),
    "large": Bar("≥", 0.8, "ratio"),
    "half": Bar("≤", 1.5, "ratio"),
}

PAIRINGS = (
    _pairing("nginx", web_servers.nginx_proxy, _RATIOS, only=frozenset(_RATIOS)),
    _pairing("HAProxy", web_servers.haproxy, _RATIOS, only=frozenset(("small", "ask"))),
)
