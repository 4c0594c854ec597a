"""The entry point of the `arke` command: choose the subcommand and run its module."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType

import arke
from arke.cli import exit_status
from arke.program import flags

SUMMARY = "Talks to the network through the relay of this machine."

COMMANDS = {
    "status": "show this node, its peers, clusters and topics",
    "request": "send a request to one member of a cluster and print its reply",
    "broadcast": "send a message to every member of a cluster",
    "publish": "send a message to every subscriber of a topic",
    "subscribe": "print the messages published to a topic",
    "tunnel": "connect stdin and stdout with one member of a cluster",
    "serve": "handle the requests of a cluster with a shell command",
    "keygen": "generate the RSA key of a network",
    "bench": "measure requests, publishing, broadcasts or tunnels",
    "completion": "print the completion script for a shell",
}

_MODULES = {
    "request": "messages",
    "broadcast": "messages",
    "publish": "messages",
    "subscribe": "messages",
    "bench": "bench.command",
}


def module_of(command: str) -> ModuleType:
    """Import the module of a command."""
    return import_module(f"arke.cli.{_MODULES.get(command, command)}")


def main() -> None:
    """Run the subcommand; only its own module is imported."""
    if sys.stdout is None:  # the next opened file would get its descriptor
        exit_status.fail("stdout is closed; to discard the output, add >/dev/null")
    command, argv = flags.choose(
        program="arke", summary=SUMMARY, commands=COMMANDS, argv=sys.argv[1:]
    )
    try:
        getattr(module_of(command), command)(argv, os.environ)
        sys.stdout.flush()
    except arke.ArkeError as error:
        exit_status.fail(exit_status.describe(error))
    except (KeyboardInterrupt, BrokenPipeError):
        exit_status.exit_quietly()
    except OSError as error:
        exit_status.fail(str(error))


if __name__ == "__main__":
    main()
