"""Command lines: a dataclass declares the flags of a command, and argparse parses them.

    @dataclass(frozen=True, slots=True)
    class Options:
        net: str | None = flags.flag("NAME", help="name of the network")
        port: int = flags.flag("N", parse=flags.port, default=55555, help="port for programs")
        dev: bool = flags.switch(help="use a temporary network name and key")

    COMMAND = flags.Command("relay", Options, "Connect the programs of this machine.")

    options = COMMAND.parse(sys.argv[1:], os.environ)

`-port 7`, `--port 7`, `-port=7` and ARKE_PORT=7 are equal. Names are not abbreviated. An error is
one line on stderr and exit status 2.
"""

from arke.program.addresses import HostPort, any_port, host_port, listen_address, port
from arke.program.flags.converters import (
    at_most,
    choice,
    count,
    name,
    number,
    on_off,
    seconds,
    text,
)
from arke.program.flags.parser import Command, argument, choose, fail, flag, switch

__all__ = [
    "Command",
    "HostPort",
    "any_port",
    "argument",
    "at_most",
    "choice",
    "choose",
    "count",
    "fail",
    "flag",
    "host_port",
    "listen_address",
    "name",
    "number",
    "on_off",
    "port",
    "seconds",
    "switch",
    "text",
]
