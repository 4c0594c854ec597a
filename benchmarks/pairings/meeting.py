"""How long a node needs to join: from the start of its relay to its first answer from another."""

from __future__ import annotations

import asyncio
import time

import arke
from benchmarks.measure import SECONDS, Bar, BenchError, Figures, Measure, Pairing, Row, Run
from benchmarks.relays import network

CLUSTER = "bench"
LIMIT = 10.0
RETRY = 0.005


def meeting(*, mdns: bool) -> Run:
    """Return a run of two relays that meet over mDNS, or because the second is told where."""

    def run(_: float) -> Figures:
        return {"seconds": asyncio.run(_meet(mdns=mdns))}

    return run


async def _meet(*, mdns: bool) -> float:
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
                await asyncio.to_thread(near.ready)  # the service answers meanwhile
                await _first_answer(near.port)
                return time.perf_counter() - began


async def _first_answer(port: int) -> None:
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


PAIRING = Pairing(
    title="Two relays find each other and can route",
    measures=(
        Measure(
            "meet-mdns",
            (Row("over mDNS", "seconds", SECONDS, Bar("≤", 1.5, "figure")),),
            arke=meeting(mdns=True),
        ),
        Measure(
            "meet-join",
            (Row("with -join", "seconds", SECONDS, Bar("≤", 0.5, "figure")),),
            arke=meeting(mdns=False),
        ),
    ),
)
