from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke_relay.log import FORMATS, LEVELS, Log, configure


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


def told(format: str = "text", level: str = "debug") -> tuple[Log, io.StringIO]:  # noqa: A002
    stream = io.StringIO()
    return configure(level, format, stream), stream


def limited_by(clock: Clock) -> tuple[Log, io.StringIO]:
    _, stream = told()
    return Log(logging.getLogger("arke_relay"), clock), stream


def test_a_line_of_text_reads_as_documented() -> None:
    log, stream = told()
    log.info("peer admitted", node="3f2a", address="192.168.56.102")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info  peer admitted"
        r" node=3f2a address=192\.168\.56\.102\n",
        stream.getvalue(),
    )


def test_a_line_of_json_is_one_object() -> None:
    log, stream = told("json")
    log.warning("peer lost", node="3f2a", after=1.5, retries=3, last=None, rate=float("inf"))
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warn",
        "message": "peer lost",
        "node": "3f2a",
        "after": 1.5,
        "retries": 3,
        "last": None,
        "rate": "inf",
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ('say "x"', r'"say \"x\""'),
        ("a=b", '"a=b"'),
        ("back\\slash", r'"back\\slash"'),
        ("line\nbreak", r'"line\nbreak"'),
        ("\x1b[31mred", r'"\u001b[31mred"'),
        ("\u202eright to left", r'"\u202eright to left"'),
        (b"\x00\xff", "00ff"),
        (("10.0.2.15", "192.168.56.101"), "10.0.2.15,192.168.56.101"),
        (0.1 + 0.2, "0.3"),
        (ValueError("no such thing"), '"no such thing"'),
        (7, "7"),
    ],
)
def test_a_value_in_text(value: object, shown: str) -> None:
    log, stream = told()
    log.info("event", field=value)
    assert stream.getvalue().endswith(f" event field={shown}\n")


@pytest.mark.parametrize("format_", FORMATS)
@given(value=st.text(min_size=1, max_size=600) | st.binary(max_size=600))
def test_no_value_leaves_its_line_or_makes_it_long(format_: str, value: str | bytes) -> None:
    log, stream = told(format_)
    log.info("event", before=1, value=value, after=2)
    line = stream.getvalue()
    assert line.isascii()
    assert line[:-1].isprintable()
    assert line.endswith("\n")
    assert len(line) < 256 * 12 + 200
    if format_ == "json":
        assert json.loads(line)["after"] == 2
    else:
        assert re.search(r' event before=1 value=("(\\.|[^"\\])*"|[^ ="]+) after=2\n$', line)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_long_value_is_cut(format_: str) -> None:
    log, stream = told(format_)
    log.info("event", value="x" * 10**6)
    assert "xxx..." in stream.getvalue()
    assert len(stream.getvalue()) < 400


def test_the_level_governs_our_lines() -> None:
    for at, _ in enumerate(LEVELS):
        log, stream = told(level=list(LEVELS)[at])
        for write in (log.debug, log.info, log.warning, log.error):
            write("event")
        written = [line.split()[1] for line in stream.getvalue().splitlines()]
        assert written == list(LEVELS)[at:]


def test_a_library_is_heard_on_one_line_from_warnings_up() -> None:
    _, stream = told()
    logging.getLogger("somebody").info("not this")
    logging.getLogger("somebody").warning("odd packet from %s", "x\n2026 forged")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(r' warn  "odd packet from x\n2026 forged" logger=somebody')


@pytest.mark.parametrize("format_", FORMATS)
def test_a_traceback_stays_on_the_line(format_: str) -> None:
    log, stream = told(format_)
    try:
        raise ValueError("evil\nlines" + "x" * 10000)
    except ValueError:
        log.exception("callback failed", name="probe")
    (line,) = stream.getvalue().splitlines()
    assert "callback failed" in line
    assert "xxxx" in line
    assert len(line) < 10000


def test_a_short_traceback_is_whole() -> None:
    log, stream = told("json")
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("callback failed")
    trace = json.loads(stream.getvalue())["trace"]
    assert trace.startswith("Traceback")
    assert trace.endswith("ValueError: broken")


def test_so_many_lines_of_a_key_pass_in_a_period() -> None:
    clock = Clock()
    log, stream = limited_by(clock)
    for number in range(5):
        log.limited("attached", 1, 3).info("program attached", number=number)
    clock.now += 1
    log.limited("attached", 1, 3).info("program attached", number=5)
    written = [line.partition("attached ")[2] for line in stream.getvalue().splitlines()]
    assert written == ["number=0", "number=1", "number=2", "number=5 suppressed=2"]


def test_a_limited_key_passes_once_a_period_and_tells_how_many_did_not() -> None:
    clock = Clock()
    log, stream = limited_by(clock)
    for _ in range(5):
        log.limited("stranger", 60).info("peer refused")
    log.limited("other", 60).info("other refused")
    clock.now += 59.9
    log.limited("stranger", 60).info("peer refused")
    clock.now += 0.1
    for _ in range(2):
        log.limited("stranger", 60).info("peer refused", why="key")
    clock.now += 60
    log.limited("stranger", 60).info("peer refused")
    assert [line.split("Z ")[1] for line in stream.getvalue().splitlines()] == [
        "info  peer refused",
        "info  other refused",
        "info  peer refused why=key suppressed=5",
        "info  peer refused suppressed=1",
    ]


def test_rotating_keys_share_a_line_and_lose_no_count() -> None:
    clock = Clock()
    log, stream = limited_by(clock)
    for number in range(5000):
        log.limited(number, 60).info("refused")
    assert len(stream.getvalue().splitlines()) == 1024 + 1
    clock.now += 60
    for number in range(5000, 10000):
        log.limited(number, 60).info("refused")
    clock.now += 60
    for number in range(10000, 10000 + 1025):
        log.limited(number, 60).info("refused")
    lines = stream.getvalue().splitlines()
    counted = sum(int(line.partition("suppressed=")[2] or 0) for line in lines)
    assert len(lines) + counted == 10000 + 1025


def test_what_a_swept_key_suppressed_is_told_with_the_others() -> None:
    clock = Clock()
    log, stream = limited_by(clock)
    for number in range(1024):
        for _ in range(3):
            log.limited(number, 60).info("refused")
    clock.now += 60
    for number in range(1024, 1024 + 1024 + 1):
        log.limited(number, 60).info("refused")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1024 + 1024 + 1
    assert lines[-1].endswith(f"suppressed={2 * 1024}")
