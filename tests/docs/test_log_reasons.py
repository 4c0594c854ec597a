"""Every value of the log field `reason` that is a code has a row."""

from __future__ import annotations

import pytest

from arke_relay.attachments.detach_reason import DetachReason
from arke_relay.attachments.pending_handshakes import Rejection
from arke_relay.core.membership import LossReason
from arke_relay.errors import ConnectionFailure, RefusalCode
from support.docs_pages import DOCS, rows

PAGE = (DOCS / "metrics-and-logs.md").read_text(encoding="utf-8")

TABLES = {
    "`program detached`:": {reason.value for reason in DetachReason},
    "`program rejected`:": {reason.value for reason in Rejection},
    "`cannot reach peer`, and": {failure.value for failure in ConnectionFailure},
    "`peer lost`:": {reason.value for reason in LossReason},
}


@pytest.mark.parametrize("heading", TABLES)
def test_every_reason_has_a_row(heading: str) -> None:
    start = PAGE.index("\n| reason | meaning |", PAGE.index(heading))
    table = PAGE[start : PAGE.index("\n\n", start + 1)]
    assert {cells[0].strip("`") for cells in rows(table)} == TABLES[heading]


def test_every_refusal_has_a_row() -> None:
    start = PAGE.index("\n| number | reason | meaning |")
    table = PAGE[start : PAGE.index("\n\n", start + 1)]
    listed = {(int(cells[0]), cells[1].strip("`")) for cells in rows(table)}
    assert listed == {(code.value, code.name.lower()) for code in RefusalCode}
