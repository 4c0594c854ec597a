"""Select the local addresses of the mesh (`-bind`), and the source address of a connection."""

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

_SHARED_BY_MANY_HOSTS = {
    "10.0.2.15",  # VirtualBox and QEMU: every machine behind their NAT
    "172.17.0.1",  # Docker: every host's default bridge
    "192.168.122.1",  # libvirt: every host's default bridge
}
_MAX_LISTED = 12  # addresses in an error text; a container host has hundreds


@dataclass(frozen=True, slots=True)
class Address:
    """One address of this machine, as a literal without a zone id."""

    ip: str
    prefix: int
    """Length of the subnet prefix, in bits."""
    interface: str
    """The interface's name, such as `eth0`. On Linux it may have a label: `eth0:1`."""

    @property
    def value(self) -> IPv4Address | IPv6Address:
        return ip_address(self.ip)

    @property
    def network(self) -> IPv4Network | IPv6Network:
        return ip_interface(f"{self.ip}/{self.prefix}").network


def machine_adapters() -> list[ifaddr.Adapter]:
    """Return the machine's current network interfaces."""
    return list(ifaddr.get_adapters())


def choose(spec: str | None, adapters: Iterable[ifaddr.Adapter]) -> list[Address]:
    """Return the addresses that `-bind` selects. Addresses that identify this machine come first.

    `spec` is an address, a CIDR or an interface. None selects all interfaces. An interface selects
    its IPv4 addresses, or its IPv6 addresses if it has no IPv4 address. Link-local IPv6 addresses
    are never selected: they need a zone id, which has no meaning on another machine.

    IPv6 is used beside IPv4 only if `spec` asks for it, for two reasons. The system's list does
    not show which addresses are temporary or not yet usable. And on a home network, a port that was
    reachable only behind the router would become reachable from the Internet.

    Raises ConfigurationError when no address is selected.
    """
    machine = _flatten(adapters)
    if spec is None:
        chosen = _one_family([each for each in machine if not each.value.is_loopback])
    else:
        chosen = _matching(spec, machine)
    if not chosen:
        raise ConfigurationError(_describe_no_match(spec, machine))
    return sorted(chosen, key=lambda address: is_ambiguous(address.ip))


def is_ambiguous(ip: str) -> bool:
    """Return whether other machines are likely to have the same address.

    Such an address is used, because it may be the only one, but it comes last: a peer that connects
    to it may reach itself.
    """
    return ip in _SHARED_BY_MANY_HOSTS or ip_address(ip).is_link_local


def kernel_choice(destination: str) -> str | None:
    """Return the source address that the kernel would select. None if there is no route."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket looks up the route and sends nothing. Any port works.
            probe.connect((destination, 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def source_for(
    destination: str,
    bound: Sequence[Address],
    route: Callable[[str], str | None] = kernel_choice,
) -> str | None:
    """Return the local address from which to connect to `destination`.

    None leaves the choice to the kernel, if it selects one of `bound`. It does not where several
    relays share a machine: every connection to 127.0.0.3 would come from 127.0.0.1.
    `destination` is an IP literal; another text raises ValueError. `route` returns the kernel's
    choice.
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
    # The whole of 127.0.0.0/8 belongs to this machine, but only 127.0.0.1 is listed.
    loopback = [each for each in machine if each.value.is_loopback and ip in each.network]
    return listed or [Address(str(ip), each.prefix, each.interface) for each in loopback[:1]]


def _base(interface: str) -> str:
    return interface.partition(":")[0]


def _describe_no_match(spec: str | None, machine: list[Address]) -> str:
    if spec is None:
        return (
            "this machine has only loopback addresses: connect it to a network, "
            "or use -bind 127.0.0.1"
        )
    names = [f"{each.ip} ({each.interface})" for each in machine]
    more = [f"and {len(names) - _MAX_LISTED} more"] if len(names) > _MAX_LISTED else []
    available = ", ".join([*names[:_MAX_LISTED], *more]) or "none"
    return (
        f"-bind must be an address, network or interface of this machine (got {spec!r}); "
        f"available: {available}"
    )
