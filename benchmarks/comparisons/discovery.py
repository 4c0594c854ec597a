"""Time to join: from the start of a relay to the first reply from a member on another relay."""

from __future__ import annotations

import asyncio
import time

import arke
from benchmarks.measure import SECONDS, BenchError, Comparison, Figures, Measure, Row, Run, Target
from benchmarks.relays import network

CLUSTER = "bench"
LIMIT = 10.0
RETRY = 0.005


def discovery(*, mdns: bool) -> Run:
    """Return a run of two relays that discover each other by mDNS, or with `-join`."""

    def run(_: float) -> Figures:
        return {"seconds": asyncio.run(_measure_discovery(mdns=mdns))}

    return run


async def _measure_discovery(*, mdns: bool) -> float:
    switch = ("-mdns", "on" if mdns else "off")
    with network() as relays, relays.relay("127.0.0.2", *switch) as far:
        far.ready()
        service = arke.Service(CLUSTER, port=far.port)

        @service.on_request
        async def answer(request: arke.Request) -> bytes:
            return request.body

        async with service:
            joining = () if mdns else ("-join", far.seed)
            began = time.perf_counter()
            with relays.relay("127.0.0.3", *switch, *joining) as near:
                await asyncio.to_thread(near.ready)  # the service must keep running
                await _first_reply(near.port)
                return time.perf_counter() - began


async def _first_reply(port: int) -> None:
    try:
        async with asyncio.timeout(LIMIT), arke.connect(port=port) as mesh:
            while True:
                try:
                    await mesh.request(CLUSTER, b"", timeout=LIMIT)
                except arke.NoSuchCluster:
                    await asyncio.sleep(RETRY)
                else:
                    return
    except TimeoutError:
        raise BenchError(f"the relays did not find each other within {LIMIT:.0f} s") from None


COMPARISON = Comparison(
    title="Two relays find each other and can route",
    measures=(
        Measure(
            "meet-mdns",
            (Row("over mDNS", "seconds", SECONDS, Target("≤", 1.5, "figure")),),
            arke=discovery(mdns=True),
        ),
        Measure(
            "meet-join",
            (Row("with -join", "seconds", SECONDS, Target("≤", 0.5, "figure")),),
            arke=discovery(mdns=False),
        ),
    ),
)
