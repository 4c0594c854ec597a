"""`arke status`: print what the relay knows, as tables or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arke.cli import stdout as output
from arke.cli.session import RELAY_TIMEOUT, AttachOptions, run
from arke.program import flags
from arke.program.printable import printable

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _StatusOptions(AttachOptions):
    json: bool = flags.switch(help="print everything as JSON")


STATUS = flags.Command(
    "arke status", _StatusOptions, "Shows this node, its peers, clusters and topics."
)


def status(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Print what the relay of this machine knows."""
    options = STATUS.parse(argv, environ)

    async def show() -> None:
        async with options.connect() as mesh:
            known = await mesh.status()
        page = json.dumps(known, indent=2) if options.json else tables(known)
        await output.write(page.encode() + b"\n")

    run(show(), limit=RELAY_TIMEOUT)


def tables(known: Mapping[str, Any]) -> str:
    """Format a status document as tables."""
    node = known["node"]
    head = _aligned(
        [
            ("node", node["id"]),
            ("address", node["address"]),
            ("network", node["network"]),
            ("version", node["version"]),
            ("up", _duration(node["uptime_s"])),
            ("programs", str(known["programs"])),
        ]
    )
    peers = [
        (
            peer["id"],
            peer["address"],
            peer["state"],
            f"{peer['heard_ms'] / 1000:.1f} s ago",
            str(peer["members"]),
        )
        for peer in known["peers"]
    ]
    clusters = [
        (
            name,
            str(cluster["here"]),
            str(cluster["elsewhere"]),
            f"{cluster['rate']:,.1f}",
            f"{cluster['requests']:,}",
        )
        for name, cluster in sorted(known["clusters"].items())
    ]
    topics = [
        (name, str(topic["here"]), str(topic["elsewhere"]))
        for name, topic in sorted(known["topics"].items())
    ]
    return "\n\n".join(
        [
            head,
            _table(("PEER", "ADDRESS", "STATE", "HEARD", "MEMBERS"), peers),
            _table(("CLUSTER", "HERE", "ELSEWHERE", "REQUESTS/S", "REQUESTS"), clusters),
            _table(("TOPIC", "HERE", "ELSEWHERE"), topics),
        ]
    )


def _table(titles: Row, rows: Iterable[Row]) -> str:
    return _aligned([titles, *(list(rows) or [("none",)])])


def _aligned(rows: Sequence[Row]) -> str:
    columns = max(map(len, rows))
    cells = [[printable(cell) for cell in row] + [""] * (columns - len(row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((index for index, (amount, _) in enumerate(parts) if amount), len(parts) - 1)
    return " ".join(f"{amount} {unit}" for amount, unit in parts[first : first + 2])
