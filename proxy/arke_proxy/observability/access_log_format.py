"""Access log formats: format the record of one request as a line."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from functools import lru_cache

from arke_proxy.observability.request_record import RequestRecord

_quote = json.encoder.encode_basestring_ascii

Format = Callable[[RequestRecord, float], bytes]
"""Takes a record and the Unix time of its end; returns a line with its newline."""

# Bytes that could end the line or a quoted field, or control a terminal.
_UNSAFE = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')


def escaped(value: bytes | None) -> bytes:
    """Escape a value for a quoted field; `-` if it is missing or empty."""
    if not value:
        return b"-"
    return _UNSAFE.sub(lambda match: b"\\x%02x" % match[0][0], value)


def common(record: RequestRecord, now: float) -> bytes:
    """Format as the Common Log Format of NCSA httpd, Apache and nginx."""
    return _common(record, now) + b"\n"


def combined(record: RequestRecord, now: float) -> bytes:
    """Format as the Combined Log Format: the common one with Referer and User-Agent."""
    referer, agent = escaped(record.referer), escaped(record.user_agent)
    return b'%b "%b" "%b"\n' % (_common(record, now), referer, agent)


def as_json(record: RequestRecord, now: float) -> bytes:
    """Format all fields as JSON; `ms` has the duration of each phase that was reached.

    Formatted by hand, because json.dumps takes three times as long.
    """
    backend = record.backend
    fields = (
        f'{{"time":"{_iso(now)}","client":{_quote(_plain(record.client))}'
        f',"method":{_text(record.method)},"target":{_text(record.target)}'
        f',"version":{_quote(record.version)},"host":{_text(record.host)}'
        f',"status":{record.status},"bytes_in":{record.bytes_in}'
        f',"bytes_out":{record.bytes_out},"cluster":{_quote(record.cluster)}'
        f',"backend":{_quote(str(backend)) if backend else "null"}'
        f',"attempts":{record.attempts},"ms":{{{_milliseconds(record)}}}'
        f',"request_id":{_text(record.request_id)},"user_agent":{_text(record.user_agent)}'
        f',"referer":{_text(record.referer)}'
    )
    upgraded = ',"upgraded":true' if record.upgraded else ""
    outcome = f',"outcome":{_quote(record.outcome)}' if record.outcome else ""
    detail = f',"detail":{_quote(record.detail)}' if record.detail else ""
    return f"{fields}{upgraded}{outcome}{detail}}}\n".encode()


FORMATS: dict[str, Format] = {"common": common, "combined": combined, "json": as_json}


def _milliseconds(record: RequestRecord) -> str:
    began, sent, answered, ended = record.began, record.sent, record.answered, record.ended
    chosen = record.chosen or sent  # 0.0 if it was sent at once
    if sent and chosen > sent:  # a backend was picked later, and could not be reached
        chosen = sent
    phases = f'"total":{(ended - began) * 1000:.3f}'
    if answered:
        phases = f'"body":{(ended - answered) * 1000:.3f},{phases}'
        phases = f'"answer":{(answered - sent) * 1000:.3f},{phases}'
    if sent:
        phases = f'"connect":{(sent - chosen) * 1000:.3f},{phases}'
    if chosen:
        phases = f'"choose":{(chosen - began) * 1000:.3f},{phases}'
    return phases


def _common(record: RequestRecord, now: float) -> bytes:
    return b'%b - - [%b] "%b %b %b" %b %b' % (
        _plain(record.client).encode() or b"-",
        _clf_time(int(now)),
        escaped(record.method),
        escaped(record.target),
        record.version.encode(),
        b"%d" % record.status if record.status else b"-",
        b"%d" % record.bytes_out if record.bytes_out else b"-",
    )


def _plain(client: str) -> str:
    return client.removeprefix("::ffff:")  # an IPv4 client of an IPv6 socket


def _text(value: bytes | None) -> str:
    return _quote(value.decode("latin-1")) if value else "null"


@lru_cache(maxsize=2)  # slower than the rest of the line
def _clf_time(second: int) -> bytes:
    return time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(second)).encode()


def _iso(now: float) -> str:
    milliseconds = int(now * 1000)
    return f"{_iso_second(milliseconds // 1000)}.{milliseconds % 1000:03}Z"


@lru_cache(maxsize=2)
def _iso_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
