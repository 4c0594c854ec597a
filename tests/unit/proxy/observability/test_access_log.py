from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from arke_proxy.backends.address import BackendAddress
from arke_proxy.http.messages import RequestHead
from arke_proxy.observability.access_log import AccessLog, batches
from arke_proxy.observability.access_log_format import as_json, combined, common, escaped
from arke_proxy.observability.request_record import RequestRecord
from support.waiting import LIMIT, wait_until


def record(target: bytes = b"/a?b", agent: bytes = b"curl/8") -> RequestRecord:
    fields = [(b"user-AGENT", agent), (b"Referer", b"http://x/")]
    head = RequestHead(b"GET", target, b"example", fields)
    record = RequestRecord("::ffff:192.0.2.7", head, 10.0)
    record.cluster = "web"
    record.chosen, record.sent, record.answered, record.ended = 10.001, 10.003, 10.010, 10.011
    record.status, record.bytes_out, record.attempts = 200, 1234, 1
    record.backend = BackendAddress("192.0.2.9", 80)
    return record


def test_common_and_combined_format() -> None:
    line = common(record(), 0.0)
    common_fields = rb'192\.0\.2\.7 - - \[[^\]]+ [+-]\d{4}\] "GET /a\?b HTTP/1\.1" 200 1234'
    assert re.fullmatch(common_fields + rb"\n", line)
    assert re.fullmatch(common_fields + rb' "http://x/" "curl/8"\n', combined(record(), 0.0))


def test_json_format_has_time_of_each_phase() -> None:
    entry = json.loads(as_json(record(), 1.5))
    assert entry["time"] == "1970-01-01T00:00:01.500Z"
    assert entry["ms"] == {
        "choose": 1.0,
        "connect": 2.0,
        "answer": 7.0,
        "body": 1.0,
        "total": 11.0,
    }
    assert (entry["backend"], entry["status"], entry["host"]) == ("192.0.2.9:80", 200, "example")
    assert "outcome" not in entry


def test_json_format_has_outcome_and_detail() -> None:
    failed = record()
    failed.outcome, failed.detail = "bad_cluster_reply", 'It answered "\x1b\n".'
    line = as_json(failed, 0.0)
    assert line.count(b"\n") == 1
    entry = json.loads(line)
    assert (entry["outcome"], entry["detail"]) == ("bad_cluster_reply", 'It answered "\x1b\n".')
    assert "detail" not in json.loads(as_json(record(), 0.0))


def test_malformed_request_is_logged() -> None:
    rejected = RequestRecord("192.0.2.7", None, 10.0)
    rejected.status, rejected.ended = 400, 10.0
    assert b'"- - HTTP/1.1" 400 -' in common(rejected, 0.0)
    assert json.loads(as_json(rejected, 0.0))["target"] == "-"


@pytest.mark.parametrize("form", [combined, as_json])
def test_client_input_cannot_inject_log_lines(form) -> None:
    hostile = b'"\n\r\x1b[2J\\\x00\xff'
    line = form(record(target=b"/" + hostile, agent=hostile), 0.0)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert all(32 <= byte < 127 for byte in line[:-1])
    assert escaped(hostile) == rb"\x22\x0a\x0d\x1b[2J\x5c\x00\xff"


def test_batches_have_whole_lines() -> None:
    lines = [b"a" * 30, b"b" * 30, b"c" * 200, b"d"]
    assert list(batches(lines, 64)) == [(2, b"a" * 30 + b"b" * 30), (1, b"c" * 200), (1, b"d")]


def open_log(path: Path | str, warnings: list[str] | None = None) -> AccessLog:
    warnings = [] if warnings is None else warnings
    return AccessLog(str(path), lambda record, _: record.target + b"\n", warnings.append)


def test_access_log_is_reopened_after_rename(tmp_path: Path) -> None:
    path, rotated = tmp_path / "access.log", tmp_path / "access.log.1"
    access_log = open_log(path)
    access_log.record(record(b"/1"))
    path.rename(rotated)
    access_log.record(record(b"/2"))
    access_log.reopen()
    access_log.record(record(b"/3"))
    access_log.close()
    assert (rotated.read_bytes(), path.read_bytes()) == (b"/1\n/2\n", b"/3\n")
    assert path.stat().st_mode & 0o007 == 0


def test_full_disk_drops_lines() -> None:
    warnings: list[str] = []
    access_log = open_log("/dev/full", warnings)
    for _ in range(3):
        access_log.record(record(b"/1"))
    access_log.close()
    assert access_log.dropped == 3
    assert "No space left" in warnings[0]


def test_full_pipe_drops_lines(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    access_log = open_log(path)
    long_record = record(b"/" + b"x" * 60_000)
    for _ in range(100):
        access_log.record(long_record)
        access_log.flush()
    assert 0 < access_log.dropped < 100
    os.set_blocking(reader, True)
    received = 0
    while received < (100 - access_log.dropped) * 60_002:
        received += len(os.read(reader, 65536))
    access_log.record(record(b"/again"))
    access_log.close()
    assert os.read(reader, 65536) == b"/again\n"
    os.close(reader)


def test_access_log_in_missing_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_log(tmp_path / "nowhere" / "access.log")


def test_partial_line_is_terminated_before_the_next(tmp_path: Path) -> None:
    """The reader of the pipe closes it after it has read a part of a line."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    warnings: list[str] = []
    access_log = open_log(path, warnings)
    access_log.record(record(b"/" + b"x" * 100_000))  # more than the pipe's buffer holds
    access_log.flush()
    os.set_blocking(reader, True)
    assert os.read(reader, 10)
    os.close(reader)
    wait_until(lambda: bool(warnings), LIMIT)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    access_log.record(record(b"/2"))
    access_log.flush()
    received = b""
    while not received.endswith(b"/2\n"):
        received += os.read(reader, 65536)
    access_log.close()
    assert received.endswith(b"x\n/2\n")
    os.close(reader)
