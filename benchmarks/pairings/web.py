"""The proxy beside nginx and HAProxy: the same backend, one worker or thread each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import web_faults, web_servers
from benchmarks.measure import (
    MEGABYTES_PER_SECOND,
    MICROSECONDS,
    MILLISECONDS,
    RATE,
    TIMES,
    Bar,
    Figures,
    Measure,
    Pairing,
    Row,
    Run,
    Unit,
)
from benchmarks.web_loads import at_rate, closed_loop
from benchmarks.web_proxies import arke_proxy
from benchmarks.web_servers import LARGE, SMALL, Proxy, backend, make_certificate

_WARM = 0.5  # seconds of load before what is measured
_KILOBYTES = Unit("KB", 1000.0)
_COUNT = Unit("", digits=0)

Load = Callable[[str, float], Figures]


def through(proxy: Proxy, path: str, load: Load, *, tls: bool = False) -> Run:
    """Return a run of a load on a proxy of its own."""

    def run(seconds: float) -> Figures:
        with tempfile.TemporaryDirectory() as folder, backend() as port:
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


class _Case(NamedTuple):
    name: str
    row: Row
    choose: str
    path: str = SMALL
    load: Load = closed_loop
    tls: bool = False


_SMALL = _Case("small", Row("small answers", "rate", RATE, Bar("≥", 0.9, "ratio")), "watch")
_ASK = _Case(
    "ask", Row("small answers, each asked for", "rate", RATE, Bar("≥", 0.6, "ratio")), "ask"
)
_OTHERS = (
    _Case(
        "tls",
        Row("small answers, TLS 1.3", "rate", RATE, Bar("≥", 0.7, "ratio")),
        "watch",
        tls=True,
    ),
    _Case(
        "large",
        Row("100 KiB answers", "octets", MEGABYTES_PER_SECOND, Bar("≥", 0.8, "ratio")),
        "watch",
        LARGE,
    ),
    _Case(
        "half",
        Row("at half of saturation, p99", "p99_us", MICROSECONDS, Bar("≤", 1.5, "ratio")),
        "watch",
        load=half_of_saturation,
    ),
)


def _pairing(peer: str, proxy: Proxy, cases: tuple[_Case, ...]) -> Pairing:
    return Pairing(
        title=f"HTTP beside {peer}",
        peer=peer,
        prepare=web_servers.prepare,
        measures=tuple(
            Measure(
                f"{case.name}-{peer.lower()}",
                (case.row,),
                arke=through(arke_proxy(case.choose), case.path, case.load, tls=case.tls),
                peer=through(proxy, case.path, case.load, tls=case.tls),
            )
            for case in cases
        ),
    )


PAIRINGS = (
    _pairing("nginx", web_servers.nginx_proxy, (_SMALL, _ASK, *_OTHERS)),
    _pairing("HAProxy", web_servers.haproxy, (_SMALL, _ASK)),
    Pairing(
        title="HTTP, and what goes wrong",
        prepare=web_servers.prepare,
        measures=(
            Measure(
                "idle",
                (
                    Row(
                        "each of 10,000 idle connections",
                        "each",
                        _KILOBYTES,
                        Bar("≤", 20e3, "figure"),
                    ),
                    Row("p99 of others alone", "alone", MILLISECONDS),
                    Row("p99 of others beside them", "beside", MILLISECONDS),
                    Row("times as long", "times", TIMES, Bar("≤", 1.25, "figure")),
                ),
                arke=web_faults.beside_idlers,
            ),
            Measure(
                "killed",
                (
                    Row("GETs that failed", "failed", _COUNT, Bar("≤", 0, "figure")),
                    Row("out of rotation after", "out", MILLISECONDS, Bar("≤", 100e3, "figure")),
                ),
                arke=web_faults.killed_under_load,
            ),
        ),
    ),
)
