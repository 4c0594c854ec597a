"""Composes the `arke` command out of its groups."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import arke
from arke.cli import exit_status as ending
from arke.program import flags

_SUMMARY = "Talks to the network through the relay of this machine."

_COMMANDS = {
    "status": "show this node, its peers, and who serves and listens to what",
    "request": "ask one member of a cluster and print its reply",
    "broadcast": "tell every member of a cluster",
    "publish": "tell every subscriber of a topic",
    "subscribe": "print what is published to a topic",
    "tunnel": "send stdin to one member of a cluster, and print what it sends",
    "serve": "answer the requests of a cluster with a shell command",
    "keygen": "make the RSA key of a network",
    "bench": "measure requests, publishing, broadcasts or tunnels",
}

_MODULES = {
    "request": "messages",
    "broadcast": "messages",
    "publish": "messages",
    "subscribe": "messages",
    "bench": "bench.command",
}


def main() -> None:
    """Run the command that the line names; only its own module is imported."""
    if sys.stdout is None:  # and the descriptor would be given to the next thing opened
        ending.fail("stdout is closed; if nobody is to read it, add >/dev/null")
    command, argv = flags.choose(
        program="arke", summary=_SUMMARY, commands=_COMMANDS, argv=sys.argv[1:]
    )
    try:
        module = import_module(f"arke.cli.{_MODULES.get(command, command)}")
        getattr(module, command)(argv, os.environ)
        sys.stdout.flush()
    except arke.ArkeError as error:
        ending.fail(ending.explained(error))
    except (KeyboardInterrupt, BrokenPipeError):
        ending.leave_quietly()
    except OSError as error:
        ending.fail(str(error))


if __name__ == "__main__":
    main()
