"""The demo on one machine: three relays on 127.0.0.1 to 127.0.0.3, two web servers and the proxy.

A program that exits, or is killed, is restarted.
"""

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
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiohttp import ClientConnectionError, ClientSession

import arke
from arke.program import flags

CLUSTER = "web"
NODES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
START_TIMEOUT = 30.0  # seconds for all programs to start; usually two are enough
STOP_TIMEOUT = 15.0  # seconds for a program to exit after SIGTERM
POLL_INTERVAL = 0.05  # seconds between two checks of what is not ready yet
STABLE_AFTER = 5.0  # seconds; a program that ran this long has started well
MAX_RESTARTS = 10  # in a row
RESTART_PAUSE = 0.5  # seconds; the ports of a killed proxy are free when its workers have exited
PROGRAM = "demo"
MAX_PORT = 65535
EXAMPLES = {
    "-listen": "127.0.0.1:8081",
    "-port": "54555",
    "-peer-port": "54565",
    "-backend-port": "54575",
}
PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


@dataclass(frozen=True, slots=True)
class Options:
    listen: flags.HostPort = flags.flag(
        "HOST:PORT", parse=flags.host_port, default="127.0.0.1:8080", help="address of the web page"
    )
    port: int = flags.flag(
        "N",
        parse=flags.port,
        default=55555,
        help="port of the first relay for programs; the other relays use N+10 and N+20",
    )
    peer_port: int = flags.flag(
        "N", parse=flags.port, default=55556, help="port of each relay for the other relays"
    )
    backend_port: int = flags.flag(
        "N", parse=flags.port, default=63450, help="port of each web server"
    )

    def relay_port(self, node: int) -> int:
        return self.port + 10 * node

    def ports(self) -> list[tuple[str, int, str]]:
        """Return host, port and flag of everything that the demo listens on."""
        relays = [(NODES[0], self.relay_port(node), "-port") for node in range(len(NODES))]
        peers = [(host, self.peer_port + more, "-peer-port") for host in NODES for more in (0, 1)]
        servers = [(host, self.backend_port, "-backend-port") for host in NODES[1:]]
        return [*relays, *peers, *servers, (*self.listen, "-listen")]


class DemoError(Exception):
    """The demo cannot continue; the text says why."""


class Program:
    """A program of the demo. Its output is shown under its name."""

    def __init__(self, name: str, words: Sequence[object], key: int) -> None:
        self._name = name
        self._words = words
        self._key = key
        self._process: asyncio.subprocess.Process
        self._output: asyncio.Task[None]
        self._started = 0.0

    async def start(self) -> None:
        self._process = await spawn(*self._words, key=self._key)
        self._started = time.monotonic()
        self._output = asyncio.create_task(self._show_output(self._process))

    async def keep_running(self, ready: asyncio.Event) -> None:
        """Restart the program when it exits.

        Raises DemoError if it exits before the demo is ready, or again and again.
        """
        restarts = 0
        while True:
            status = await self._process.wait()
            await self._output
            if not ready.is_set():
                raise DemoError(f"{self._name} {describe_exit(status)}")
            if time.monotonic() - self._started >= STABLE_AFTER:
                restarts = 0
            restarts += 1
            if restarts > MAX_RESTARTS:
                raise DemoError(f"{self._name} {describe_exit(status)}, again and again")
            say(f"{PROGRAM}: {self._name} {describe_exit(status)}; restarting it")
            await asyncio.sleep(RESTART_PAUSE)
            await self.start()

    async def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT)
        except TimeoutError:
            say(f"{PROGRAM}: {self._name} did not stop within {STOP_TIMEOUT:g} s; killing it")
            self._process.kill()
            await self._process.wait()
        await self._output

    async def _show_output(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout
        async for line in process.stdout:
            say(f"{self._name:8} | {line.decode(errors='replace').rstrip()}")


class Demo:
    """Starts programs one after another, keeps them running, and stops them in reverse order."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._programs = contextlib.AsyncExitStack()
        self._watchers = asyncio.TaskGroup()
        self._ready = asyncio.Event()
        self._key = -1

    async def run(self) -> None:
        """Run until cancelled. Raises DemoError, in a group, if a program cannot run."""
        async with self._programs, self._watchers:
            async with asyncio.timeout(START_TIMEOUT):
                self._key = await new_key()
                await self._start_relays()
                await self._start_servers()
                await self._start_proxy()
            self._ready.set()
            say(f"\nready: open {self._page}hello/alice and reload it; Ctrl-C stops the demo\n")
            await asyncio.Event().wait()

    @property
    def _page(self) -> str:
        return f"http://{self._options.listen}/"

    async def _start_relays(self) -> None:
        for node, address in enumerate(NODES):
            await self._start(
                f"relay {node + 1}",
                *("-m", "arke_relay.main", "-net", "demo", "-rsa", f"/proc/self/fd/{self._key}"),
                *("-bind", address, "-port", self._options.relay_port(node)),
                *("-peer-port", self._options.peer_port),
            )
        for node in range(len(NODES)):
            async with arke.connect(port=self._options.relay_port(node), wait=START_TIMEOUT):
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
            await until(partial(self._servers_are_known, mesh))

    async def _servers_are_known(self, mesh: arke.Mesh) -> bool:
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
            await until(partial(page_is_served, browser, self._page))

    async def _start(self, name: str, *words: object) -> None:
        program = Program(name, words, self._key)
        await program.start()
        self._programs.push_async_callback(program.stop)
        self._watchers.create_task(program.keep_running(self._ready))


async def new_key() -> int:
    """Make the network's key; return a descriptor of it.

    It is in memory only, so that no file is left if the demo is killed.
    """
    with tempfile.TemporaryDirectory(prefix="arke-demo-") as folder:
        file = Path(folder, "id_rsa")
        keygen = await spawn("-m", "arke.cli.main", "keygen", file)
        if await keygen.wait():
            raise DemoError("arke keygen failed")
        descriptor = os.memfd_create("id_rsa")
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, file.read_bytes())  # noqa: ASYNC240  it is small
    return descriptor


async def spawn(*words: object, key: int = -1) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *map(str, words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # only the demo gets Ctrl-C; it stops the programs in order
        preexec_fn=exit_with_parent,
        pass_fds=() if key < 0 else (key,),
        env={name: value for name, value in os.environ.items() if not name.startswith("ARKE_")},
    )


def exit_with_parent() -> None:
    """Let the kernel stop this child process if the demo is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def describe_exit(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    return f"was killed by {signal.Signals(-status).name}"


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await check():
            return
        await asyncio.sleep(POLL_INTERVAL)


async def page_is_served(browser: ClientSession, page: str) -> bool:
    try:
        async with browser.get(page) as response:
            return response.status == 200
    except ClientConnectionError:
        return False


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def check_ports(options: Options) -> None:
    """Exit with one line if a port of the demo is in use or invalid."""
    for host, port, flag in options.ports():
        where, choose = flags.HostPort(host, port), f"make demo DEMO='{flag} {EXAMPLES[flag]}'"
        if port > MAX_PORT:
            flags.fail(PROGRAM, f"{where}: a port must be at most {MAX_PORT}; choose with {choose}")
        try:
            socket.create_server((host, port)).close()
        except OSError as error:
            fault = (error.strerror or str(error)).partition(" (")[0]  # without the address
            fix = f"stop the program that uses it, or choose with {choose}"
            flags.fail(PROGRAM, f"{where}: {fault}; {fix}")


async def run(options: Options) -> int:
    demo = asyncio.create_task(Demo(options).run())

    def stop() -> None:
        if not demo.cancelling():  # a second Ctrl-C changes nothing
            demo.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    await asyncio.wait((demo,))
    status = 0
    try:
        if not demo.cancelled():
            demo.result()
    except* (DemoError, TimeoutError, arke.ArkeError) as failures:
        for failure in failures.exceptions:
            say(f"{PROGRAM}: {failure or f'not ready within {START_TIMEOUT:g} s'}")
        status = 1
    return status


def main() -> None:
    command = flags.Command(
        PROGRAM, Options, "Run the demo on this machine: three relays, two web servers, the proxy."
    )
    options = command.parse(sys.argv[1:], None)  # an ARKE_ variable is meant for one program only
    check_ports(options)
    logging.getLogger("arke").setLevel(logging.ERROR)  # not that relays are still starting
    sys.exit(asyncio.run(run(options)))


if __name__ == "__main__":
    main()
