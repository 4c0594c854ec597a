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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvloop

from arke import __version__
from arke.program import flags, logging
from arke.program.logging import Log
from arke_relay.discovery.addresses import choose, machine_adapters
from arke_relay.errors import ConfigurationError
from arke_relay.peers.keyfile import load_key
from arke_relay.relay import Relay, Settings

_SUMMARY = "Brings this machine's programs into the network of relays with the same name and key."
_JOIN_PORT = 55556
_LAST_PORT = 65535
_DAY = 24 * 3600
_MIB = 1024 * 1024
_LARGEST = 256 * _MIB  # what one caller may leave in a relay's care


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    net: str | None = flags.flag("NAME", parse=flags.text, default=None, help="name of the network")
    rsa: tuple[Path, ...] = flags.flag(
        "KEYFILE",
        parse=Path,
        repeat=True,
        help="RSA private key of the network; the first signs, each further one also admits",
    )
    dev: bool = flags.switch(help="make up a network name and a key, and print them")
    port: int = flags.flag(
        "N", parse=flags.any_port, default=55555, help="where local programs attach; 0 for nowhere"
    )
    socket: Path | None = flags.flag(
        "PATH", parse=Path, default=None, help="Unix socket where local programs attach"
    )
    bind: str | None = flags.flag(
        "ADDRESS|CIDR|INTERFACE",
        parse=flags.text,
        default=None,
        help="which of this machine's addresses the mesh uses (default: all but loopback)",
    )
    peer_port: int = flags.flag(
        "N",
        parse=flags.any_port,
        default=_JOIN_PORT,
        help="where other relays join; their data uses the next port; 0 for any two",
    )
    join: tuple[flags.HostPort, ...] = flags.flag(
        "HOST:PORT",
        parse=flags.host_port,
        repeat=True,
        help="a relay to look for, at its peer port",
    )
    mdns: bool = flags.flag(
        "on|off", parse=flags.on_off, default=True, help="find relays by multicast DNS"
    )
    max_message: int = flags.flag(
        "BYTES", parse=flags.count, default=16 * _MIB, help="largest body of a message"
    )
    cert_life: float = flags.flag(
        "TIME",
        parse=flags.seconds,
        default="24h",
        help="how long peers admit this relay, at most 24h",
    )
    grace: float = flags.flag(
        "TIME", parse=flags.seconds, default="30s", help="how long to finish requests when stopped"
    )
    metrics: flags.HostPort | None = flags.flag(
        "HOST:PORT",
        parse=flags.listen_address,
        default=None,
        help="serve Prometheus metrics, /healthz and /readyz",
    )
    log_level: str = logging.level_flag()
    log_format: str = logging.format_flag()


COMMAND = flags.Command("relay", Options, _SUMMARY)


def main() -> None:
    """Run a relay until SIGTERM or SIGINT. Exit status 2: it cannot start as configured."""
    options = COMMAND.parse(sys.argv[1:], os.environ)
    log = logging.configure("arke_relay", options.log_level, options.log_format)
    _raise_descriptor_limit()
    try:
        with (
            _settings(options) as settings,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(_run(settings, log))
    except ConfigurationError as error:
        flags.fail("relay", str(error))


async def _run(settings: Settings, log: Log) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    relay = Relay(settings, log)
    await relay.start()
    try:
        await stopped.wait()
    finally:
        await relay.stop()


@contextlib.contextmanager
def _settings(options: Options) -> Iterator[Settings]:
    """What the flags mean. Raises ConfigurationError."""
    with contextlib.ExitStack() as cleanup:
        network, keyfiles = options.net, options.rsa
        if options.dev:
            network, keyfiles = _made_up(options, cleanup)
        if network is None or not keyfiles:
            raise ConfigurationError(
                "give the network with -net NAME -rsa KEYFILE (`arke keygen FILE` makes a key), "
                "or try it out with -dev"
            )
        if not options.port and options.socket is None:
            raise ConfigurationError("-port 0 leaves programs no way in: add -socket PATH")
        if options.peer_port == _LAST_PORT:
            raise ConfigurationError("-peer-port must leave a next port: 65534 at most")
        if options.max_message > _LARGEST:
            raise ConfigurationError(f"-max-message must be {_LARGEST} (256 MiB) at most")
        if options.cert_life > _DAY or options.cert_life < 1:
            raise ConfigurationError("-cert-life must be from 1s to 24h")
        yield Settings(
            network=network,
            keys=[load_key(path) for path in keyfiles],
            bound=choose(options.bind, machine_adapters()),
            port=options.port,
            socket=options.socket,
            peer_port=options.peer_port,
            seeds=options.join,
            mdns=options.mdns,
            metrics=options.metrics,
            max_message=options.max_message,
            lifetime=int(options.cert_life),
            grace=options.grace,
            version=__version__,
        )


def _made_up(options: Options, cleanup: contextlib.ExitStack) -> tuple[str, tuple[Path, ...]]:
    """A network for one try, and the command that lets another relay in."""
    from arke.keygen import write_key  # noqa: PLC0415 — slow to import, and only -dev needs it

    folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="arke-dev-")))
    network = options.net or f"dev-{os.urandom(3).hex()}"
    keyfiles = options.rsa
    if not keyfiles:
        keyfiles = (folder / "id_rsa",)
        write_key(keyfiles[0])
    print(shlex.join(["relay", "-net", network, "-rsa", str(keyfiles[0])]), flush=True)  # noqa: T201 — what was asked for
    return network, keyfiles


def _raise_descriptor_limit() -> None:
    """As many connections as the system allows must be survived: libzmq has no bound."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
