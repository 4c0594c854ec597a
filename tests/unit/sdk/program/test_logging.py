from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke.program.addresses import HostPort
from arke.program.log_throttle import LogThrottle
from arke.program.logging import FORMATS, LEVELS, Log, configure
from support.manual_clock import ManualClock


@pytest.fixture(autouse=True)
def _restore_root_logger() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


def logged(format: str = "text", level: str = "debug") -> tuple[Log, io.StringIO]:  # noqa: A002
    stream = io.StringIO()
    return configure("arke_relay", level, format, stream), stream


def throttled_by(clock: ManualClock) -> tuple[Log, io.StringIO]:
    _, stream = logged()
    return Log(logging.getLogger("arke_relay"), LogThrottle(clock)), stream


def test_text_line_has_time_level_message_and_fields() -> None:
    log, stream = logged()
    log.info("peer admitted", node="3f2a", address="192.168.56.102")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info  peer admitted"
        r" node=3f2a address=192\.168\.56\.102\n",
        stream.getvalue(),
    )


def test_json_line_is_one_object() -> None:
    log, stream = logged("json")
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
        (HostPort("::1", 80), "[::1]:80"),
        (0.1 + 0.2, "0.3"),
        (ValueError("no such thing"), '"no such thing"'),
        (7, "7"),
    ],
)
def test_text_value_is_quoted_where_necessary(value: object, shown: str) -> None:
    log, stream = logged()
    log.info("event", field=value)
    assert stream.getvalue().endswith(f" event field={shown}\n")


@pytest.mark.parametrize("format_", FORMATS)
@given(value=st.text(min_size=1, max_size=600) | st.binary(max_size=600))
def test_no_value_can_forge_a_line_or_a_field(format_: str, value: str | bytes) -> None:
    log, stream = logged(format_)
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
def test_long_value_is_shortened(format_: str) -> None:
    log, stream = logged(format_)
    log.info("event", value="x" * 10**6)
    assert "xxx..." in stream.getvalue()
    assert len(stream.getvalue()) < 400


def test_level_is_the_minimum_that_is_written() -> None:
    for at, _ in enumerate(LEVELS):
        log, stream = logged(level=list(LEVELS)[at])
        for write in (log.debug, log.info, log.warning, log.error):
            write("event")
        written = [line.split()[1] for line in stream.getvalue().splitlines()]
        assert written == list(LEVELS)[at:]


def test_libraries_are_logged_from_warnings_up_on_one_line() -> None:
    _, stream = logged()
    logging.getLogger("library").info("not this")
    logging.getLogger("library").warning("odd packet from %s", "x\n2026 forged")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(r' warn  "odd packet from x\n2026 forged" logger=library')


@pytest.mark.parametrize("format_", FORMATS)
def test_traceback_stays_on_one_line(format_: str) -> None:
    log, stream = logged(format_)
    try:
        raise ValueError("evil\nlines" + "x" * 10000)
    except ValueError:
        log.exception("callback failed", name="probe")
    (line,) = stream.getvalue().splitlines()
    assert "callback failed" in line
    assert "xxxx" in line
    assert len(line) < 10000


def test_short_traceback_is_complete() -> None:
    log, stream = logged("json")
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("callback failed")
    trace = json.loads(stream.getvalue())["trace"]
    assert trace.startswith("Traceback")
    assert trace.endswith("ValueError: broken")


def test_a_limited_event_is_written_once_per_period_and_reports_suppressed_ones() -> None:
    clock = ManualClock()
    log, stream = throttled_by(clock)
    for _ in range(5):
        log.limited("refused", 60).info("peer refused")
    log.limited("other", 60).info("other refused")
    clock.now += 60
    for _ in range(2):
        log.limited("refused", 60).info("peer refused", reason="wrong_key")
    clock.now += 60
    log.limited("refused", 60).info("peer refused")
    assert [line.split("Z ")[1] for line in stream.getvalue().splitlines()] == [
        "info  peer refused",
        "info  other refused",
        "info  peer refused reason=wrong_key suppressed=4",
        "info  peer refused suppressed=1",
    ]


def test_several_events_of_one_key_per_period() -> None:
    clock = ManualClock()
    log, stream = throttled_by(clock)
    for number in range(5):
        log.limited("attached", 1, 3).info("program attached", number=number)
    clock.now += 1
    log.limited("attached", 1, 3).info("program attached", number=5)
    written = [line.partition("attached ")[2] for line in stream.getvalue().splitlines()]
    assert written == ["number=0", "number=1", "number=2", "number=5 suppressed=2"]


def test_the_level_applies_to_the_sdk_too() -> None:
    _, stream = logged(level="info")
    logging.getLogger("arke").debug("not this")
    logging.getLogger("arke").info("attached again")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(" info  attached again logger=arke")
