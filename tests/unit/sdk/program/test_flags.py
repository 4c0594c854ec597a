from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import arke
from arke.compiled import is_compiled
from arke.program import flags

PROGRAM = """
import os, sys
from dataclasses import dataclass
from arke.program import flags

@dataclass(frozen=True, slots=True)
class Options:
    port: int = flags.flag("N", parse=flags.port, default=55555, help="where programs attach")
    peer_port: int = flags.flag("N", parse=flags.any_port, default=55556, help="where relays meet")
    life: float = flags.flag("TIME", parse=flags.seconds, default="24h", help="of a certificate")
    dev: bool = flags.switch(help="try it out")

options = flags.Command("relay", Options, "Connects programs.").parse(sys.argv[1:], os.environ)
print(options.port)
"""


@dataclass(frozen=True, slots=True)
class Options:
    net: str | None = flags.flag("NAME", help="network")
    rsa: tuple[Path, ...] = flags.flag("KEYFILE", parse=Path, repeat=True, help="key")
    peer_port: int = flags.flag("N", parse=flags.any_port, default=55556, help="join socket")
    mdns: bool = flags.flag("on|off", parse=flags.on_off, default=True, help="multicast")
    life: float = flags.flag("TIME", parse=flags.seconds, default="24h", help="certificate")
    listen: tuple[str, int] = flags.flag(
        "HOST:PORT", parse=flags.listen_address, default=":8080", help="address"
    )
    dev: bool = flags.switch(help="try it out")


@dataclass(frozen=True, slots=True)
class RequestOptions:
    cluster: str = flags.argument("CLUSTER", help="where to send it")
    body: str = flags.argument("BODY", parse=str, help="what")
    port: int = flags.flag("N", parse=flags.port, required=True, help="where")


def read(*argv: str, **environ: str) -> Options:
    return flags.Command("relay", Options, "Connects programs.").parse(argv, environ)


def request(*argv: str, **environ: str) -> RequestOptions:
    return flags.Command("arke request", RequestOptions, "Sends a request.").parse(argv, environ)


def run(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ARKE_")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *argv],
        env=clean | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def the_error(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err.strip()


@pytest.mark.parametrize("argv", [["-port", "7"], ["--port", "7"], ["-port=7"], ["--port=7"]])
def test_flag_spellings_are_equal(argv: list[str]) -> None:
    assert run(*argv).stdout == "7\n"


def test_command_line_takes_precedence_over_the_environment() -> None:
    assert run(ARKE_PORT="7").stdout == "7\n"
    assert run("-port", "8", ARKE_PORT="7").stdout == "8\n"


@pytest.mark.parametrize(
    ("argv", "environ", "line"),
    [
        (["-port", "abc"], {}, "relay: -port must be between 1 and 65535 (got abc)"),
        ([], {"ARKE_PORT": "abc"}, "relay: ARKE_PORT must be between 1 and 65535 (got abc)"),
        (["-port"], {}, "relay: -port: expected one argument; see `relay -h`"),
        (["-po", "7"], {}, "relay: unrecognized arguments: -po 7; see `relay -h`"),
        (["--peer", "7"], {}, "relay: unrecognized arguments: --peer 7; see `relay -h`"),
        (["-h7"], {}, "relay: unrecognized arguments: -h7; see `relay -h`"),
        (["-port", "a\nb\x1b[1m"], {}, "relay: -port must be between 1 and 65535 (got 'a b?[1m')"),
    ],
)
def test_an_error_is_one_line_and_exit_status_2(
    argv: list[str], environ: dict[str, str], line: str
) -> None:
    done = run(*argv, **environ)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line + "\n")


@pytest.mark.parametrize("spelling", ["-h", "-help", "--help"])
def test_help_is_one_page(spelling: str) -> None:
    done = run(spelling, COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "usage: relay [flags]\n"
        "\n"
        "Connects programs.\n"
        "\n"
        "flags:\n"
        "  -port N       where programs attach (default: 55555)\n"
        "  -peer-port N  where relays meet (default: 55556)\n"
        "  -life TIME    of a certificate (default: 24h)\n"
        "  -dev          try it out\n"
        "  -h            show this page\n"
        "  -version      show the version\n"
        "\n"
        "Flags can also be set in the environment, -peer-port as ARKE_PEER_PORT and so\n"
        "on. The command line takes precedence.\n"
    )


@pytest.mark.parametrize("spelling", ["-version", "--version"])
def test_the_version_is_one_line(spelling: str) -> None:
    done = run(spelling)
    assert (done.returncode, done.stderr) == (0, "")
    how = "compiled" if is_compiled() else "not compiled"
    assert done.stdout == f"relay {arke.__version__} ({how})\n"


def test_flags_that_are_not_given_have_their_defaults() -> None:
    assert read() == Options()
    assert read().net is None
    assert read().rsa == ()
    assert read().life == 24 * 3600
    assert read().listen == ("", 8080)
    assert read().dev is False


def test_values_are_typed() -> None:
    assert read(
        *["-net", "n", "-rsa", "a", "--rsa=b", "-peer-port", "0", "-mdns", "off"],
        *["-life", "5s", "-listen", "[::1]:0", "-dev"],
    ) == Options(
        net="n",
        rsa=(Path("a"), Path("b")),
        peer_port=0,
        mdns=False,
        life=5.0,
        listen=flags.HostPort("::1", 0),
        dev=True,
    )


def test_repeated_values_are_separated_by_commas_in_the_environment() -> None:
    assert read(ARKE_RSA="a, b").rsa == (Path("a"), Path("b"))


def test_a_switch_can_be_set_in_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    assert read(ARKE_DEV="1").dev is True
    assert read(ARKE_DEV="off").dev is False
    with pytest.raises(SystemExit, match="2"):
        read(ARKE_DEV="maybe")
    assert the_error(capsys) == "relay: ARKE_DEV must be on or off (got maybe)"


def test_an_empty_environment_variable_counts_as_not_set() -> None:
    assert read(ARKE_PEER_PORT="", ARKE_RSA="") == Options()


@pytest.mark.parametrize("argv", [["-net", ""], ["-rsa", " "], ["-rsa="]])
def test_an_empty_value_is_rejected(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        read(*argv)
    assert "must not be empty" in the_error(capsys)


def test_positional_arguments_may_be_mixed_with_flags() -> None:
    assert request("echo", "-port", "7", "hello") == RequestOptions(
        cluster="echo", body="hello", port=7
    )


@pytest.mark.parametrize("body", ["", "-", "-5", "-a b", '{"a": 1}'])
def test_a_positional_argument_may_be_any_text(body: str) -> None:
    assert request("echo", body, ARKE_PORT="7").body == body


def test_an_argument_that_looks_like_a_flag_follows_two_dashes() -> None:
    assert request("-port", "7", "--", "echo", "-h").body == "-h"


def test_a_missing_argument_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        request("echo", "-port", "7")
    assert the_error(capsys) == (
        "arke: the following arguments are required: BODY; see `arke request -h`"
    )


def test_a_missing_required_flag_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        request("echo", "x")
    assert the_error(capsys) == "arke: give -port N, or set ARKE_PORT"


@pytest.mark.parametrize(
    ("convert", "text", "value"),
    [
        (flags.count, "64", 64),
        (flags.number(1, 64), "64", 64),
        (flags.at_most(flags.seconds, 300.0), "5m", 300.0),
        (flags.on_off, "on", True),
        (flags.on_off, "No", False),
        (flags.seconds, "0.5", 0.5),
        (flags.seconds, "250ms", 0.25),
        (flags.seconds, "10m", 600.0),
        (flags.seconds, "7d", 604800.0),
        (flags.choice("text", "json"), "json", "json"),
    ],
)
def test_converters_parse_valid_text(convert, text: str, value: object) -> None:
    assert convert(text) == value


@pytest.mark.parametrize(
    ("convert", "texts"),
    [
        (flags.text, ["", " "]),
        (flags.count, ["0", "-1", "many", "9" * 5000]),
        (flags.number(1, 64), ["0", "65", "x"]),
        (flags.at_most(flags.count, 9), ["0", "10"]),
        (flags.on_off, ["", "2", "maybe"]),
        (
            flags.seconds,
            ["", "0", "0s", "-1", "inf", "nan", "5 s", "5w", "1h30m", "9" * 400, "366d"],
        ),
        (flags.choice("text", "json"), ["", "JSON"]),
    ],
)
def test_converters_reject_invalid_text(convert, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(ValueError, match=r"^must "):
            convert(text)


def choose(*argv: str) -> tuple[str, list[str]]:
    name, rest = flags.choose(
        program="arke",
        summary="Talks to the mesh.",
        commands={"status": "show the network", "request": "ask a cluster"},
        argv=argv,
    )
    return name, list(rest)


def test_a_command_gets_the_rest_of_the_command_line() -> None:
    assert choose("status", "-json") == ("status", ["-json"])


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "arke: a command is missing; `arke -h` lists them"),
        (["statsu"], "arke: unknown command statsu; did you mean status?"),
        (["x y"], "arke: unknown command 'x y'; `arke -h` lists them"),
        (["-port", "7"], "arke: flags such as -port must follow the command"),
        (["--", "status"], "arke: flags such as -- must follow the command"),
    ],
)
def test_an_unknown_command_is_one_line(
    argv: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        choose(*argv)
    assert the_error(capsys) == line


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        choose("-h")
    page = capsys.readouterr().out
    assert page.startswith("usage: arke COMMAND …\n\nTalks to the mesh.\n")
    assert "  status    show the network\n  request   ask a cluster\n" in page


@pytest.mark.parametrize("value", ["x", "é" * 127, "two words"])
def test_a_name_has_1_to_255_bytes(value: str) -> None:
    assert flags.name(value) == value


@pytest.mark.parametrize("value", ["", "x" * 256, "é" * 128, "\udcff"])
def test_an_invalid_name_is_rejected(value: str) -> None:
    with pytest.raises(ValueError, match="must be 1 to 255 bytes of UTF-8 text"):
        flags.name(value)
