"""Which of the machine's addresses the mesh uses, and which of them a connection comes from."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)

import ifaddr

from arke_relay.errors import ConfigurationError

_SAME_EVERYWHERE = {
    "10.0.2.15",  # VirtualBox and QEMU: every machine behind their NAT
    "172.17.0.1",  # Docker: every host's default bridge
    "192.168.122.1",  # libvirt: every host's default bridge
}
_LISTED = 12  # addresses named in an error; a container host has hundreds


@dataclass(frozen=True, slots=True)
class Address:
    """One address of this machine, as a literal without a zone."""

    ip: str
    prefix: int
    """Bits of `ip` that its subnet shares."""
    interface: str
    """The interface's name, `eth0`; on Linux it may carry a label, `eth0:1`."""

    @property
    def value(self) -> IPv4Address | IPv6Address:
        return ip_address(self.ip)

    @property
    def network(self) -> IPv4Network | IPv6Network:
        return ip_interface(f"{self.ip}/{self.prefix}").network


def machine_adapters() -> list[ifaddr.Adapter]:
    """Return the interfaces the machine has now."""
    return list(ifaddr.get_adapters())


def choose(spec: str | None, adapters: Iterable[ifaddr.Adapter]) -> list[Address]:
    """Return the addresses that `-bind` means: those a peer can tell this machine by come first.

    An interface, like no `spec` at all, means its IPv4 addresses, or its IPv6 addresses where it
    has no other; an address or a CIDR means what it says. Link-local IPv6 is never chosen: it
    works only with a zone, which has no meaning on another machine.

    IPv6 beside IPv4 must be asked for, because it is not sound by default. The system's list does
    not tell a temporary address, gone tomorrow, or one still being checked, which cannot be bound
    yet, from a lasting one; and on a home network it would open to the whole Internet a port that
    was reachable from behind one router only.

    Raises ConfigurationError when nothing is left.
    """
    machine = _flatten(adapters)
    if spec is None:
        chosen = _one_family([each for each in machine if not each.value.is_loopback])
    else:
        chosen = _matching(spec, machine)
    if not chosen:
        raise ConfigurationError(_nothing(spec, machine))
    return sorted(chosen, key=lambda address: is_ambiguous(address.ip))


def is_ambiguous(ip: str) -> bool:
    """Whether other machines are likely to have the very same address.

    It is still used, since it may be the only one, but never preferred: a peer that connects to
    it may well meet itself.
    """
    return ip in _SAME_EVERYWHERE or ip_address(ip).is_link_local


def kernel_choice(destination: str) -> str | None:
    """Return the local address the kernel would connect from; None when there is no route."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket looks up the route and sends nothing; any port does.
            probe.connect((destination, 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def source_for(
    destination: str,
    bound: Sequence[Address],
    route: Callable[[str], str | None] = kernel_choice,
) -> str | None:
    """Return the local address that a connection to `destination` must come from.

    None leaves it to the kernel, whose choice is right where it is one of `bound`. It is not
    where several relays share a machine: to 127.0.0.3 everybody would come from 127.0.0.1.
    `destination` is a literal; anything else raises ValueError. `route` tells the kernel's choice.
    """
    target = ip_address(destination)
    usable = [address for address in bound if address.value.version == target.version]
    if route(destination) in {address.ip for address in usable}:
        return None
    if not usable:
        return None
    near = [address for address in usable if target in address.network]
    return max(near, key=lambda address: address.prefix).ip if near else usable[0].ip


def _flatten(adapters: Iterable[ifaddr.Adapter]) -> list[Address]:
    machine: dict[str, Address] = {}
    for adapter in adapters:
        for entry in adapter.ips:
            ip = entry.ip if isinstance(entry.ip, str) else entry.ip[0].partition("%")[0]
            if not (":" in ip and ip_address(ip).is_link_local):
                machine.setdefault(ip, Address(ip, entry.network_prefix, adapter.name))
    return list(machine.values())


def _one_family(addresses: list[Address]) -> list[Address]:
    return [each for each in addresses if each.value.version == 4] or addresses


def _matching(spec: str, machine: list[Address]) -> list[Address]:
    try:
        network = ip_network(spec, strict=False)
    except ValueError:
        names = {spec, *(each.interface for each in machine if _base(each.interface) == spec)}
        return _one_family([each for each in machine if each.interface in names])
    if network.num_addresses == 1:
        return _exactly(network.network_address, machine)
    return [
        each
        for each in machine
        if each.value in network and each.value.is_loopback == network.is_loopback
    ]


def _exactly(ip: IPv4Address | IPv6Address, machine: list[Address]) -> list[Address]:
    listed = [each for each in machine if each.value == ip]
    # All of 127.0.0.0/8 is this machine, and only 127.0.0.1 is listed.
    loopback = [each for each in machine if each.value.is_loopback and ip in each.network]
    return listed or [Address(str(ip), each.prefix, each.interface) for each in loopback[:1]]


def _base(interface: str) -> str:
    return interface.partition(":")[0]


def _nothing(spec: str | None, machine: list[Address]) -> str:
    if spec is None:
        return (
            "this machine has no address but loopback: connect it to a network, "
            "or stay on this machine with -bind 127.0.0.1"
        )
    names = [f"{each.ip} ({each.interface})" for each in machine]
    more = [f"and {len(names) - _LISTED} more"] if len(names) > _LISTED else []
    has = ", ".join([*names[:_LISTED], *more]) or "no address"
    return f"-bind {spec!r} is no address, network or interface of this machine, which has {has}"
