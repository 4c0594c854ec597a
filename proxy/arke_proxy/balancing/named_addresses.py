"""Decide whether the proxy connects to an address that a member named when it was asked."""

from __future__ import annotations

from ipaddress import ip_address

import arke
from arke.program.addresses import depends_on_machine
from arke_proxy.backends.address import BackendAddress


class NamedAddresses:
    """Follows the members of a cluster. Which of them answered a request is not known.

    So a loopback or link-local address is allowed only if every member is on this machine: the
    answer of another machine would let its program choose among the servers of this one.
    """

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}  # of the node of each member, by member id
        self._elsewhere: set[str] = set()  # ids of members on other machines

    def member_joined(self, member: arke.Member, node: arke.Node) -> None:
        self._addresses[member.id] = member.address
        # Peers reach a node at a loopback address only if all run on one machine, as in tests.
        if member.node != node.id and not ip_address(member.address).is_loopback:
            self._elsewhere.add(member.id)

    def member_left(self, member: arke.Member) -> None:
        self._addresses.pop(member.id, None)
        self._elsewhere.discard(member.id)

    def allows(self, address: BackendAddress) -> bool:
        """Say whether to connect. The address of a member's node is always allowed."""
        if not depends_on_machine(address.host):
            return True
        if self._addresses and not self._elsewhere:
            return True
        return address.host in self._addresses.values()
