"""One way to read a command line, for every command of Arke.

    @dataclass(frozen=True, slots=True)
    class Options:
        net: str | None = flags.flag("NAME", help="name of the network")
        port: int = flags.flag("N", parse=flags.port, default=55555, help="where programs attach")
        dev: bool = flags.switch(help="make up a network and a key")

    options = flags.parse(
        Options, program="relay", summary="…", argv=sys.argv[1:], environ=os.environ
    )

`-port 7`, `--port 7`, `-port=7` and ARKE_PORT=7 mean the same; nothing is abbreviated; an error
is one line and status 2.
"""

from arke.program.flags.converters import (
    HostPort,
    any_port,
    choice,
    count,
    host_port,
    listen_address,
    name,
    on_off,
    port,
    seconds,
    text,
)
from arke.program.flags.parser import argument, choose, fail, flag, parse, switch

__all__ = [
    "HostPort",
    "any_port",
    "argument",
    "choice",
    "choose",
    "count",
    "fail",
    "flag",
    "host_port",
    "listen_address",
    "name",
    "on_off",
    "parse",
    "port",
    "seconds",
    "switch",
    "text",
]
