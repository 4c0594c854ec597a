"""The lab's network: one switch, the hosts on it, and an isolated network behind every eth0."""

from __future__ import annotations

import shutil
import subprocess
import time

from lab import namespaces

FIRST_ADDRESS = 101
_CARRIER = 10.0  # seconds


def address(host: int) -> str:
    """Return the address on the switch of host 0, 1, 2 …"""
    return f"192.168.56.{FIRST_ADDRESS + host}"


class Cabling:
    """Builds the network around the calling process's namespace, which becomes the switch."""

    def __init__(self, hosts: int) -> None:
        ip = shutil.which("ip")
        if ip is None:
            raise FileNotFoundError("the command `ip` is missing: install iproute2")
        self._ip = ip
        self._switch = namespaces.current()
        self._sink = namespaces.create()
        self._hosts = [namespaces.create() for _ in range(hosts)]
        # With snooping the switch forwards multicast only after a membership report, which comes
        # late. A VirtualBox host-only network floods, too.
        self._configure(
            self._switch, ["link add switch type bridge mcast_snooping 0", _up("switch")]
        )
        for host in range(hosts):
            self._plug_in(host)
        for host in range(hosts):
            self._wait_for_carrier(self._switch, _port(host))
            self._wait_for_carrier(self._hosts[host], "eth1")

    def enter(self, host: int) -> None:
        """Enter the namespace of `host`; the next process starts there."""
        namespaces.enter(self._hosts[host])

    def set_cable(self, host: int, *, plugged: bool) -> None:
        # Take down the switch's end: eth1 loses its carrier and keeps its configuration, as with
        # an unplugged cable.
        state = "up" if plugged else "down"
        self._configure(self._switch, [f"link set {_port(host)} {state}"])

    def _plug_in(self, host: int) -> None:
        port, number, inside = _port(host), FIRST_ADDRESS + host, self._hosts[host]
        there = f"netns /proc/self/fd/{inside}"
        self._configure(
            self._sink,
            [
                f"link add {port} type veth peer name eth0 {there}",
                _up(port),
            ],
            passing=inside,
        )
        self._configure(
            self._switch,
            [
                # If both ends have the same index, the kernel reports their carrier a second late.
                f"link add {port} index {1000 + number} type veth peer name eth1 {there}",
                f"link set {port} master switch",
                _up(port),
            ],
            passing=inside,
        )
        self._configure(
            inside,
            [
                "link set lo up",
                # Link-local addresses without duplicate detection, which takes two seconds: a real
                # host has finished it when a relay starts.
                "link set eth0 addrgenmode none",
                "link set eth1 addrgenmode none",
                "address add 10.0.2.15/24 brd + dev eth0",
                f"address add fe80::a00:27ff:fe00:{number:x}/64 dev eth0 nodad",
                f"address add 192.168.56.{number}/24 brd + dev eth1",
                f"address add fe80::a00:27ff:fe01:{number:x}/64 dev eth1 nodad",
                _up("eth0"),
                _up("eth1"),
                "route add default via 10.0.2.2 dev eth0",
            ],
        )

    def _wait_for_carrier(self, namespace: int, link: str) -> None:
        deadline = time.monotonic() + _CARRIER
        while " state UP " not in self._run(namespace, ["-o", "link", "show", "dev", link]):
            if time.monotonic() > deadline:
                raise OSError(f"{link} has no carrier")
            time.sleep(0.002)

    def _configure(self, namespace: int, lines: list[str], *, passing: int | None = None) -> None:
        self._run(namespace, ["-batch", "-"], "\n".join(lines), passing)

    def _run(
        self, namespace: int, words: list[str], lines: str = "", passing: int | None = None
    ) -> str:
        namespaces.enter(namespace)
        done = subprocess.run(
            [self._ip, *words],
            input=lines,
            capture_output=True,
            text=True,
            check=False,
            pass_fds=[] if passing is None else [passing],
        )
        if done.returncode:
            raise OSError(f"ip: {done.stderr.strip()}")
        return done.stdout


def _port(host: int) -> str:
    return f"port{FIRST_ADDRESS + host}"


def _up(link: str) -> str:
    return f"link set {link} up"
