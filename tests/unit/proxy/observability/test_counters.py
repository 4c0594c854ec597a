from __future__ import annotations

import pytest

from arke_proxy.backends.address import BackendAddress
from arke_proxy.observability.counters import BOUNDS, OTHER, SEPARATOR, RequestCounters
from arke_proxy.observability.metrics import page
from arke_proxy.observability.request_record import RequestRecord


def record(
    backend: BackendAddress | None, status: int = 200, cluster: str = "web"
) -> RequestRecord:
    record = RequestRecord("192.0.2.7", None, 1.0)
    record.cluster = cluster
    record.backend, record.status = backend, status
    record.chosen, record.sent, record.answered, record.ended = 1.0002, 1.003, 1.05, 1.06
    record.attempts, record.bytes_in, record.bytes_out = 1, 3, 5
    return record


def metrics_page(*all_counters: RequestCounters) -> str:
    total: dict[str, float] = {}
    for counters in all_counters:
        for key, value in counters.report().items():
            total[key] = total.get(key, 0) + value
    return page({"counters": total, "gauges": {"connections": 2.0}}).decode()


def test_metrics_page_sums_requests_and_phases_of_all_workers() -> None:
    first, second = RequestCounters(), RequestCounters()
    first.record(record(BackendAddress("192.0.2.9", 80)))
    second.record(record(BackendAddress("192.0.2.9", 80)))
    second.record(record(None, 503))
    text = metrics_page(first, second)
    requests = "arke_proxy_requests_total"
    assert f'{requests}{{backend="192.0.2.9:80",cluster="web",code="200"}} 2.0' in text
    assert f'{requests}{{backend="",cluster="web",code="503"}} 1.0' in text
    buckets = "arke_proxy_phase_seconds_bucket"
    assert f'{buckets}{{le="0.0005",phase="choose"}} 3.0' in text
    assert f'{buckets}{{le="0.0025",phase="connect"}} 0.0' in text
    assert f'{buckets}{{le="0.005",phase="connect"}} 3.0' in text
    assert f'{buckets}{{le="+Inf",phase="total"}} 3.0' in text
    assert 'arke_proxy_body_bytes_total{direction="out"} 15.0' in text
    assert "arke_proxy_connections 2.0" in text


def test_retries_and_failures_are_counted() -> None:
    counters = RequestCounters()
    retried = record(BackendAddress("192.0.2.9", 80))
    retried.attempts = 3
    failed = record(None, 503)
    failed.outcome = "no_backend"
    for each in (retried, failed):
        counters.record(each)
    text = metrics_page(counters)
    assert "arke_proxy_retries_total 2.0" in text
    assert 'arke_proxy_failures_total{reason="no_backend"} 1.0' in text


def test_phases_are_never_negative_after_failed_retry() -> None:
    counters = RequestCounters()
    failed = record(BackendAddress("192.0.2.9", 80), 502)
    failed.chosen, failed.answered = failed.sent + 1, 0.0
    counters.record(failed)
    assert all(number >= 0 for number in counters.report().values())


def test_number_of_backend_labels_is_limited() -> None:
    counters = RequestCounters()
    for port in range(1, 302):
        counters.record(record(BackendAddress("192.0.2.9", port)))
    counters.record(record(BackendAddress("192.0.2.9", 1)))
    requests = {key: n for key, n in counters.report().items() if key.startswith("requests")}
    assert len(requests) == 201
    assert requests[SEPARATOR.join(("requests", "web", "200", OTHER))] == 101
    assert requests[SEPARATOR.join(("requests", "web", "200", "192.0.2.9:1"))] == 2


def test_number_of_request_series_is_limited() -> None:
    counters = RequestCounters()
    for status in range(200, 1000):
        for port in range(1, 11):
            counters.record(record(BackendAddress("192.0.2.9", port), status))
    assert sum(key.startswith("requests") for key in counters.report()) < 6000


def test_websocket_is_not_counted_in_total_phase() -> None:
    counters = RequestCounters()
    websocket = record(BackendAddress("192.0.2.9", 80), 101)
    websocket.upgraded, websocket.ended = True, 5000.0
    counters.record(websocket)
    buckets = [SEPARATOR.join(("phase", "total", str(number))) for number in range(16)]
    assert sum(counters.report()[bucket] for bucket in buckets) == 0
    assert len(BOUNDS) == 15


@pytest.mark.parametrize("name", ["a\x1fb", "\udcff"])
def test_invalid_label_value_does_not_break_metrics_page(name: str) -> None:
    counters = RequestCounters()
    counters.record(record(None, cluster=name))
    assert 'code="200"' in metrics_page(counters)
