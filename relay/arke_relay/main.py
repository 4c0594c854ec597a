"""The `relay` command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from arke import __version__
from arke.program import flags, logging
from arke.program.logging import Log
from arke.wire.limits import LARGEST_MAX_MESSAGE
from arke_relay.discovery.addresses import Address, choose, machine_adapters
from arke_relay.errors import ConfigurationError
from arke_relay.peers.keyfile import load_key
from arke_relay.relay import Relay, Settings

_PORT = 55555
_PEER_PORT = 55556
_MAX_PORT = 65535
_MAX_CERTIFICATE_LIFE = 24 * 3600.0  # seconds
_MIB = 1024 * 1024


def _certificate_life(text: str) -> float:
    life = flags.seconds(text)
    if not 1.0 <= life <= _MAX_CERTIFICATE_LIFE:
        raise ValueError("must be between 1s and 24h")
    return life


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """The flags of the `relay` command."""

    net: str | None = flags.flag("NAME", parse=flags.text, default=None, help="name of the network")
    rsa: tuple[Path, ...] = flags.flag(
        "KEYFILE",
        parse=Path,
        repeat=True,
        help="RSA private key of the network; the first one signs, further ones only admit peers",
    )
    dev: bool = flags.switch(
        help="try it out: use a temporary key, and print commands for other terminals"
    )
    port: int = flags.flag(
        "N", parse=flags.any_port, default=_PORT, help="loopback port for programs; 0 for none"
    )
    socket: Path | None = flags.flag(
        "PATH", parse=Path, default=None, help="Unix socket for programs"
    )
    bind: str | None = flags.flag(
        "ADDRESS|CIDR|INTERFACE",
        parse=flags.text,
        default=None,
        help="addresses of this machine that other relays connect to (default: all but loopback)",
    )
    peer_port: int = flags.flag(
        "N",
        parse=flags.any_port,
        default=_PEER_PORT,
        help="port for other relays; the next port is used too; 0 for any two free ports",
    )
    join: tuple[flags.HostPort, ...] = flags.flag(
        "HOST:PORT",
        parse=flags.host_port,
        repeat=True,
        help="a relay to connect to, with its peer port",
    )
    mdns: bool = flags.flag(
        "on|off", parse=flags.on_off, default=True, help="find relays by multicast DNS"
    )
    max_message: int = flags.flag(
        "BYTES",
        parse=flags.number(1, LARGEST_MAX_MESSAGE),
        default=16 * _MIB,
        help="maximum size of a message body",
    )
    cert_life: float = flags.flag(
        "TIME",
        parse=_certificate_life,
        default="24h",
        help="how long peers admit this relay before it must prove its key again, at most 24h",
    )
    grace: float = flags.flag(
        "TIME",
        parse=flags.seconds,
        default="30s",
        help="time to finish running requests when the relay stops",
    )
    metrics: flags.HostPort | None = flags.flag(
        "HOST:PORT",
        parse=flags.listen_address,
        default=None,
        help="serve Prometheus metrics, /healthz and /readyz",
    )
    metrics_name: Sequence[str] = flags.flag(
        "NAME",
        parse=flags.text,
        repeat=True,
        help="another host name under which the pages of -metrics may be requested; an IP address, "
        "localhost and this machine's name always may",
    )
    log_level: str = logging.level_flag()
    log_format: str = logging.format_flag()


COMMAND = flags.Command(
    "relay",
    RelayOptions,
    "Connects the programs of this machine to the relays with the same network name and key.",
)


def main() -> None:
    """Run a relay until SIGTERM or SIGINT. The exit status is 2 if it cannot start."""
    options = COMMAND.parse(sys.argv[1:], os.environ)
    log = logging.configure("arke_relay", options.log_level, options.log_format)
    _raise_descriptor_limit()
    try:
        with (
            _settings(options) as (settings, dev_commands),
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(_run(settings, dev_commands, log))
    except ConfigurationError as error:
        flags.fail("relay", str(error))


async def _run(settings: Settings, dev_commands: str, log: Log) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    relay = Relay(settings, log)
    await relay.start()
    print(dev_commands, end="", flush=True)  # noqa: T201 — the output of -dev
    try:
        await stopped.wait()
    finally:
        await relay.stop()


@contextlib.contextmanager
def _settings(options: RelayOptions) -> Iterator[tuple[Settings, str]]:
    """Check the flags together. Yield the settings, and the text that `-dev` prints.

    Raises ConfigurationError.
    """
    if not options.dev and (options.net is None or not options.rsa):
        raise ConfigurationError(
            "give the network with -net NAME -rsa KEYFILE (`arke keygen FILE` makes a key), "
            "or try it out with -dev"
        )
    if not options.port and options.socket is None:
        raise ConfigurationError("-port 0 needs -socket PATH: programs could not attach")
    if options.peer_port == _MAX_PORT:
        raise ConfigurationError(f"-peer-port must be at most {_MAX_PORT - 1}: it uses two ports")
    with contextlib.ExitStack() as cleanup:
        bound = _addresses(options)
        network, keyfiles = options.net or f"dev-{os.urandom(3).hex()}", options.rsa
        dev_commands = ""
        if options.dev:
            keyfiles = keyfiles or (_temporary_key(cleanup),)
            dev_commands = _dev_commands(options, network, keyfiles[0], bound[0].ip)
        settings = Settings(
            network=network,
            keys=[load_key(path) for path in keyfiles],
            bind_addresses=bound,
            port=options.port,
            socket=options.socket,
            peer_port=options.peer_port,
            seeds=options.join,
            mdns=options.mdns,
            metrics=options.metrics,
            metrics_names=options.metrics_name,
            max_message=options.max_message,
            admission_lifetime=int(options.cert_life),
            grace=options.grace,
            version=__version__,
        )
        yield settings, dev_commands


def _addresses(options: RelayOptions) -> list[Address]:
    """Return the addresses to bind; loopback for `-dev` on a machine without a network."""
    adapters = machine_adapters()
    try:
        return choose(options.bind, adapters)
    except ConfigurationError:
        if options.dev and options.bind is None:
            return choose("127.0.0.1", adapters)
        raise


def _temporary_key(cleanup: contextlib.ExitStack) -> Path:
    from arke.keygen import write_key  # noqa: PLC0415 — slow to import, and only -dev needs it

    key = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="arke-dev-")), "id_rsa")
    write_key(key)
    return key


def _dev_commands(options: RelayOptions, network: str, key: Path, address: str) -> str:
    """Return the commands for other terminals: another relay, a service and a caller."""
    step = 10 if max(options.port, options.peer_port) < _MAX_PORT - 10 else -10
    here = ["-port", str(options.port)] if options.port else ["-path", str(options.socket)]
    second = str((options.port or _PORT) + step)
    peer_port = options.peer_port or _PEER_PORT
    relay = ["relay", "-net", network, "-rsa", str(key), "-bind", address, "-port", second]
    relay += ["-peer-port", str(peer_port + step)]
    relay += ["-join", str(flags.HostPort(address, peer_port))] if options.peer_port else []
    commands = {
        "another relay": relay,
        "a service": ["arke", "serve", "greeter", "-exec", "rev", *here],
        "a caller": ["arke", "request", "greeter", "hello", *here],
        "a caller at the other relay": ["arke", "request", "greeter", "hello", "-port", second],
    }
    lines = ["This relay uses a temporary key. In other terminals:", ""]
    for about, words in commands.items():
        lines += [f"# {about}", shlex.join(words)]
    return "\n".join([*lines, ""]) + "\n"


def _raise_descriptor_limit() -> None:
    """Raise the soft limit to the hard limit: libzmq accepts peers without a bound of its own."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
