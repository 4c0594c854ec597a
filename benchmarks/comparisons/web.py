"""The proxy compared with nginx and HAProxy: the same backend, one worker or thread each."""

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
    Comparison,
    Figures,
    Measure,
    Row,
    Run,
    Target,
    Unit,
)
from benchmarks.web_loads import at_rate, closed_loop
from benchmarks.web_proxies import arke_proxy
from benchmarks.web_servers import LARGE, SMALL, StartProxy, backend, make_certificate

_WARM = 0.5  # seconds of warm-up
_KILOBYTES = Unit("KB", 1000.0)
_COUNT = Unit("", digits=0)

Load = Callable[[str, float], Figures]


def through(proxy: StartProxy, path: str, load: Load, *, tls: bool = False) -> Run:
    """Return a run of a load on its own proxy."""

    def run(seconds: float) -> Figures:
        with tempfile.TemporaryDirectory() as folder, backend() as port:
            certificate = make_certificate(Path(folder)) if tls else None
            with proxy(port, certificate) as here:
                url = f"{'https' if tls else 'http'}://localhost:{here}{path}"
                closed_loop(url, _WARM)
                return load(url, seconds)

    return run


def half_of_saturation(url: str, seconds: float) -> Figures:
    """Measure the maximum rate, then the latency at half of it."""
    most = closed_loop(url, seconds)["rate"]
    return at_rate(url, most / 2, seconds)


class _Case(NamedTuple):
    name: str
    row: Row
    choose: str
    path: str = SMALL
    load: Load = closed_loop
    tls: bool = False


_SMALL = _Case("small", Row("small responses", "rate", RATE, Target("≥", 0.9, "ratio")), "watch")
_ASK = _Case(
    "ask", Row("small responses, -choose ask", "rate", RATE, Target("≥", 0.6, "ratio")), "ask"
)
_OTHERS = (
    _Case(
        "tls",
        Row("small responses, TLS 1.3", "rate", RATE, Target("≥", 0.7, "ratio")),
        "watch",
        tls=True,
    ),
    _Case(
        "large",
        Row("100 KiB responses", "bytes", MEGABYTES_PER_SECOND, Target("≥", 0.8, "ratio")),
        "watch",
        LARGE,
    ),
    _Case(
        "half",
        Row("at half of saturation, p99", "p99_us", MICROSECONDS, Target("≤", 1.5, "ratio")),
        "watch",
        load=half_of_saturation,
    ),
)


def _comparison(competitor: str, proxy: StartProxy, cases: tuple[_Case, ...]) -> Comparison:
    return Comparison(
        title=f"HTTP, compared with {competitor}",
        competitor=competitor,
        prepare=web_servers.prepare,
        measures=tuple(
            Measure(
                f"{case.name}-{competitor.lower()}",
                (case.row,),
                arke=through(arke_proxy(case.choose), case.path, case.load, tls=case.tls),
                competitor=through(proxy, case.path, case.load, tls=case.tls),
            )
            for case in cases
        ),
    )


COMPARISONS = (
    _comparison("nginx", web_servers.nginx_proxy, (_SMALL, _ASK, *_OTHERS)),
    _comparison("HAProxy", web_servers.haproxy, (_SMALL, _ASK)),
    Comparison(
        title="HTTP under faults",
        prepare=web_servers.prepare,
        measures=(
            Measure(
                "idle",
                (
                    Row(
                        "each of 10,000 idle connections",
                        "each",
                        _KILOBYTES,
                        Target("≤", 20e3, "figure"),
                    ),
                    Row("p99 of active clients alone", "alone", MILLISECONDS),
                    Row("p99 of active clients beside them", "beside", MILLISECONDS),
                    Row("ratio", "times", TIMES, Target("≤", 1.25, "figure")),
                ),
                arke=web_faults.with_idle_clients,
            ),
            Measure(
                "killed",
                (
                    Row("GETs that failed", "failed", _COUNT, Target("≤", 0, "figure")),
                    Row("ejected after", "out", MILLISECONDS, Target("≤", 100e3, "figure")),
                ),
                arke=web_faults.backend_killed_under_load,
            ),
        ),
    ),
)
