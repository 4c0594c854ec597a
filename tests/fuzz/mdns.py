"""Multicast DNS from untrusted hosts: records, and the packets that contain them."""

from __future__ import annotations

import logging
from ipaddress import ip_address
from random import Random
from types import SimpleNamespace
from typing import Any

from zeroconf import (
    DNSAddress,
    DNSCache,
    DNSIncoming,
    DNSOutgoing,
    DNSPointer,
    DNSService,
    DNSText,
)

from arke.program.logging import Log
from arke_relay.discovery.addresses import Address
from arke_relay.discovery.hints import Hint
from arke_relay.discovery.mdns import Mdns
from arke_relay.discovery.multicast import Multicast
from arke_relay.discovery.records import (
    SERVICE,
    Announcement,
    IgnoreCause,
    Record,
    instance,
    read,
    text,
)
from fuzz.finding import require
from fuzz.mutator import Blocks
from fuzz.script import event, steps
from fuzz.simulated_loop import SimulatedLoop
from fuzz.target import Target

# Events. Each says what the bytes before it are.
TEXT = 0x10  # a TXT record
NAME = 0x11  # the name of an instance
ADDRESSES = 0x12  # its addresses, one in each line
PORT = 0x13
PACKET = 0x14  # a whole packet

_NODE, _OTHER = "0123456789abcdef", "fedcba9876543210"
_TAG = bytes(range(16))
_MAX_ENTRIES = 1024  # in each table
_IN, _RESPONSE = 1, 0x8400
_LOG = Log(logging.getLogger("arke fuzz"))


class Link:
    """Discovery without sockets: packets go into the cache of the zeroconf library."""

    def __init__(self) -> None:
        self.hints: list[Hint] = []
        bound = (Address("10.1.2.3", 8, "eth0"), Address("2001:db8::3", 32, "eth0"))
        self.mdns = Mdns(bound, _NODE, 55556, _TAG, self._match, self.hints.append, _LOG)
        self.cache = DNSCache()
        self.multicast = Multicast(self.mdns._changed, _LOG)
        self.multicast._zeroconf = SimpleNamespace(zeroconf=SimpleNamespace(cache=self.cache))  # type: ignore[assignment]
        self.mdns._multicast = self.multicast
        self.mdns._query = lambda *_: None  # type: ignore[method-assign]  # no network

    def packet(self, data: bytes) -> None:
        """Handle a packet as the library does: cache it, and report its pointers to the browser."""
        incoming = DNSIncoming(data)
        if not incoming.valid:
            return
        answers = incoming.answers()
        self.cache.async_add_records(answers)
        for answer in answers:
            if isinstance(answer, DNSPointer) and answer.name.lower() == SERVICE:
                self.mdns._changed(answer.alias, gone=answer.ttl == 0)

    def record(self, record: Record) -> None:
        for loopback in (False, True):
            found = read(record, loopback=loopback)
            require(
                isinstance(found, IgnoreCause | Announcement),
                "neither an announcement nor a cause to ignore it",
            )
        self.mdns._evaluate(record.name.lower(), record)

    def check(self) -> None:
        require(len(self.mdns._known) <= _MAX_ENTRIES, "too many instances are known")
        require(len(self.mdns._ignored) <= _MAX_ENTRIES, "too many instances are ignored")
        for hint in self.hints:
            require(1 <= hint.port <= 65535, "an invalid port")
            require(1 <= len(hint.addresses) <= 16, "no address or too many")
            for literal in hint.addresses:
                address = ip_address(literal)
                require(not address.is_multicast, "a hint with a multicast address")
                require(not address.is_loopback, "a hint with a loopback address")
        self.hints.clear()

    def _match(self, tag: bytes, node: str) -> int | None:
        return 0 if tag == _TAG else None


async def run(loop: SimulatedLoop, data: bytes) -> None:
    link = Link()
    name, port, addresses = instance(_OTHER), 55556, ["10.1.1.1"]
    txt = _wire(text(_TAG))
    for reads, event_number in steps(data):
        for data in reads[:64]:
            if event_number == PACKET:
                link.packet(data)
            elif event_number == NAME:
                name = data.decode(errors="replace")
            elif event_number == ADDRESSES:
                addresses = data.decode(errors="replace").split("\n")
            elif event_number == PORT:
                port = int.from_bytes(data[:8])
            else:
                txt = data
            link.record(Record(name, port, txt, addresses))
        link.check()
    link.record(Record(instance("00000000000000ff"), 55556, _wire(text(_TAG)), ["10.9.9.9"]))
    require(len(link.hints) == 1, "a valid relay is not found")
    link.check()


def _wire(values: dict[bytes, bytes]) -> bytes:
    pairs = [key + b"=" + value for key, value in values.items()]
    return b"".join(bytes((len(pair),)) + pair for pair in pairs)


def _generated(random: Random) -> bytes:
    kind = random.choice((TEXT, NAME, ADDRESSES, PORT, PACKET, PACKET, PACKET))
    made: bytes
    if kind == TEXT:
        made = _some_text(random)
    elif kind == NAME:
        made = _some_name(random).encode()
    elif kind == ADDRESSES:
        made = "\n".join(_some_address(random) for _ in range(random.randrange(20))).encode()
    elif kind == PORT:
        made = random.choice((0, 1, 65535, 65536, 2**63)).to_bytes(8)
    else:
        made = _some_packet(random)
    return made.replace(b"\xc1", b"\xc1\x01") + event(kind)


def _some_text(random: Random) -> bytes:
    values = {
        random.choice((b"v", b"h", b"V", b"", b"x")): random.choice(
            (b"1", b"2", _TAG.hex().encode(), b"", b"x" * 200)
        )
        for _ in range(random.randrange(4))
    }
    return _wire(values) if random.random() < 0.5 else _wire(text(_TAG))


def _some_name(random: Random) -> str:
    return random.choice(
        (
            instance(_OTHER),
            instance(_NODE),
            instance(f"{random.randrange(2**64):016X}"),
            SERVICE,
            "x.example.com.",
            "ß." + SERVICE,
            "." + SERVICE,
        )
    )


def _some_address(random: Random) -> str:
    return random.choice(
        (
            "10.1.1.1",
            "127.0.0.1",
            "::1",
            "fe80::1%eth0",
            "224.0.0.251",
            "0.0.0.0",
            "",
            "ff02::fb",
            "::ffff:10.1.1.1",
            "2001:db8::7",
            "10.1.1.256",
        )
    )


def _some_packet(random: Random) -> bytes:
    out = DNSOutgoing(_RESPONSE)
    name = _some_name(random)
    host = f"{_OTHER}.local."
    life = random.choice((0, 1, 120, 4500))
    records: list[Any] = [
        DNSPointer(SERVICE, 12, _IN, life, name),
        DNSService(name, 33, _IN, life, 0, 0, random.choice((0, 55556, 65535)), host),
        DNSText(name, 16, _IN, life, _some_text(random)),
        DNSAddress(host, 1, _IN, life, random.choice((b"\x0a\x01\x01\x01", b"\x7f\0\0\1", b"x"))),
        DNSAddress(host, 28, _IN, life, random.randbytes(16)),
    ]
    for record in records:
        if random.random() < 0.85:
            out.add_answer_at_time(record, 0)
    packets: list[bytes] = out.packets()
    return packets[0]


TARGET = Target(run, Blocks(_generated))
