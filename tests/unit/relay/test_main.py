from __future__ import annotations

import ifaddr
import pytest

from arke_relay import main
from arke_relay.errors import ConfigurationError

LOOPBACK = ifaddr.Adapter("lo", "lo", [ifaddr.IP("127.0.0.1", 8, "lo")])
ETHERNET = ifaddr.Adapter("eth0", "eth0", [ifaddr.IP("192.168.56.101", 24, "eth0")])


def addresses(
    monkeypatch: pytest.MonkeyPatch, adapters: list[ifaddr.Adapter], *argv: str
) -> list[str]:
    monkeypatch.setattr(main, "machine_adapters", lambda: adapters)
    return [address.ip for address in main._addresses(main.COMMAND.parse(argv, None))]


def test_dev_uses_loopback_on_a_machine_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    assert addresses(monkeypatch, [LOOPBACK], "-dev") == ["127.0.0.1"]
    assert addresses(monkeypatch, [LOOPBACK, ETHERNET], "-dev") == ["192.168.56.101"]


@pytest.mark.parametrize("argv", [[], ["-dev", "-bind", "192.168.56.101"]])
def test_missing_network_is_an_error_without_dev(
    monkeypatch: pytest.MonkeyPatch, argv: list[str]
) -> None:
    with pytest.raises(ConfigurationError):
        addresses(monkeypatch, [LOOPBACK], *argv)
