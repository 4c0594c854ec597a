"""The whole demo on one machine: three nodes on 127.0.0.1 to 127.0.0.3, two servers, the proxy."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiohttp import ClientConnectionError, ClientSession

import arke
from arke.program import flags

CLUSTER = "web"
NODES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
READY = 30.0  # seconds for everything to start; a quiet machine needs two
LEAVING = 15.0  # seconds for a program to end after SIGTERM
GLANCE = 0.05  # seconds between two looks at what is not ready yet
PROGRAM = "demo"
HIGHEST = 65535
EXAMPLES = {
    "-listen": "127.0.0.1:8081",
    "-port": "54555",
    "-peer-port": "54565",
    "-backend-port": "54575",
}
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


@dataclass(frozen=True, slots=True)
class Options:
    listen: flags.HostPort = flags.flag(
        "HOST:PORT", parse=flags.host_port, default="127.0.0.1:8080", help="of the page"
    )
    port: int = flags.flag(
        "N", parse=flags.port, default=55555, help="of the first relay; the others have N+10, N+20"
    )
    peer_port: int = flags.flag(
        "N", parse=flags.port, default=55556, help="where the relays meet, on each node"
    )
    backend_port: int = flags.flag(
        "N", parse=flags.port, default=63450, help="of the web servers, on their nodes"
    )

    def relay_port(self, node: int) -> int:
        return self.port + 10 * node

    def ports(self) -> list[tuple[str, int, str]]:
        """Return host, port and flag of everything that the demo listens on."""
        relays = [(NODES[0], self.relay_port(node), "-port") for node in range(len(NODES))]
        peers = [(host, self.peer_port + more, "-peer-port") for host in NODES for more in (0, 1)]
        servers = [(host, self.backend_port, "-backend-port") for host in NODES[1:]]
        return [*relays, *peers, *servers, (*self.listen, "-listen")]


class Failed(Exception):
    """The demo cannot go on; the text says why."""


class Child:
    """A running program, whose lines are shown under its name."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process
        self._echo = asyncio.create_task(self._show_lines())

    async def watch(self) -> None:
        """Wait until the program ends, which it should not. Raises Failed."""
        status = await self._process.wait()
        await self._echo
        raise Failed(f"{self._name} ended by itself, with status {status}")

    async def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), LEAVING)
        except TimeoutError:
            say(f"{self._name} does not end, and is killed")
            self._process.kill()
            await self._process.wait()
        await self._echo

    async def _show_lines(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            say(f"{self._name:8} | {line.decode(errors='replace').rstrip()}")


class Demo:
    """Starts programs one after another, watches them, and stops them in the reverse order."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._started = contextlib.AsyncExitStack()
        self._watchers = asyncio.TaskGroup()

    async def run(self) -> None:
        """Run until cancelled, or until a program ends. Raises Failed, in a group, for that."""
        async with self._started, self._watchers:
            async with asyncio.timeout(READY):
                await self._start_relays()
                await self._start_servers()
                await self._start_proxy()
            say(f"\nready: open {self._page}hello/alice and refresh; Ctrl-C stops\n")
            await asyncio.Event().wait()

    @property
    def _page(self) -> str:
        return f"http://{self._options.listen}/"

    async def _start_relays(self) -> None:
        # The relays read the key as they start; nothing needs it on disk afterwards.
        with tempfile.TemporaryDirectory(prefix="arke-demo-") as folder:
            key = Path(folder, "id_rsa")
            keygen = await spawn("-m", "arke.cli.main", "keygen", key)
            if await keygen.wait():
                raise Failed("no key could be made")
            for node, address in enumerate(NODES):
                await self._start(
                    f"relay {node + 1}",
                    *("-m", "arke_relay.main", "-net", "demo", "-rsa", key, "-bind", address),
                    *("-port", self._options.relay_port(node)),
                    *("-peer-port", self._options.peer_port),
                )
            for node in range(len(NODES)):
                async with arke.connect(port=self._options.relay_port(node), wait=READY):
                    pass

    async def _start_servers(self) -> None:
        for node, address in list(enumerate(NODES))[1:]:
            await self._start(
                f"server {node + 1}",
                *(Path(__file__).with_name("httpserver.py"), "-cluster", CLUSTER),
                *("-port", self._options.relay_port(node)),
                *("-listen", flags.HostPort(address, self._options.backend_port)),
            )
        async with arke.connect(port=self._options.relay_port(0)) as mesh:
            await eventually(partial(self._known, mesh))

    async def _known(self, mesh: arke.Mesh) -> bool:
        cluster = (await mesh.status())["clusters"].get(CLUSTER, {})
        return bool(cluster.get("elsewhere", 0) == len(NODES) - 1)

    async def _start_proxy(self) -> None:
        await self._start(
            "proxy",
            *("-m", "arke_proxy.main", "-cluster", CLUSTER),
            *("-port", self._options.relay_port(0)),
            *("-listen", self._options.listen),
            *("-backend-port", self._options.backend_port),
        )
        async with ClientSession() as browser:
            await eventually(partial(answers, browser, self._page))

    async def _start(self, name: str, *words: object) -> None:
        child = Child(name, await spawn(*words))
        self._started.push_async_callback(child.stop)
        self._watchers.create_task(child.watch())


async def spawn(*words: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *map(str, words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for the demo alone, which stops the others in order
        preexec_fn=die_with_parent,
        env={name: value for name, value in os.environ.items() if not name.startswith("ARKE_")},
    )


def die_with_parent() -> None:
    """Prepare a child so that nothing stays behind should the demo itself be killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await check():
            return
        await asyncio.sleep(GLANCE)


async def answers(browser: ClientSession, page: str) -> bool:
    try:
        async with browser.get(page) as response:
            return response.status == 200
    except ClientConnectionError:
        return False


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def check_ports(options: Options) -> None:
    """End with one line if a port of the demo is taken, or is none."""
    for host, port, flag in options.ports():
        where, choose = flags.HostPort(host, port), f"make demo DEMO='{flag} {EXAMPLES[flag]}'"
        if port > HIGHEST:
            flags.fail(PROGRAM, f"{where}: there is no such port; choose with {choose}")
        try:
            socket.create_server((host, port)).close()
        except OSError as error:
            fault = (error.strerror or str(error)).partition(" (")[0]  # `where` says the rest
            flags.fail(PROGRAM, f"{where}: {fault}; stop what uses it, or choose with {choose}")


async def run(options: Options) -> int:
    demo = asyncio.create_task(Demo(options).run())

    def stop() -> None:
        if not demo.cancelling():  # being asked twice does not make it faster
            demo.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    await asyncio.wait((demo,))
    status = 0
    try:
        if not demo.cancelled():
            demo.result()
    except* (Failed, TimeoutError, arke.ArkeError) as failures:
        for failure in failures.exceptions:
            say(f"{PROGRAM}: {failure or f'not ready within {READY:g} s'}")
        status = 1
    return status


def main() -> None:
    options = flags.Command(
        PROGRAM,
        Options,
        "Run the whole demo on this machine: three nodes, two web servers, the proxy.",
    ).parse(sys.argv[1:], None)
    check_ports(options)
    logging.getLogger("arke").setLevel(logging.ERROR)  # that relays take a moment is no news
    sys.exit(asyncio.run(run(options)))


if __name__ == "__main__":
    main()
