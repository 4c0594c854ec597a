"""A worker's request counters: cheap to update, converted to metrics only on demand.

The keys of a report are a metric and its labels, joined by SEPARATOR. So the master can sum reports
without knowing the metrics.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter

from arke_proxy.backends.address import BackendAddress
from arke_proxy.observability.request_record import RequestRecord

SEPARATOR = "\x1f"

# Upper bounds of the histogram buckets, in seconds.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
PHASES = ("choose", "connect", "answer", "total")
OTHER = "(other)"
"""The backend label after the first 200 backends, which limits the number of series."""

_BATCH = 512  # records; counting them takes half a millisecond
_MAX_BACKENDS = 200
_MAX_SERIES = 5000  # a backend may answer with any status code
_OTHER_ADDRESS = BackendAddress("", 0)  # counted as OTHER


class Histogram:
    """The number of values in each bucket (not cumulative), and the sum of all values."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def add(self, values: list[float]) -> None:
        """Add many values at once: sorting them is faster than a search per value."""
        values.sort()
        self.sum += sum(values)
        below = 0
        for bucket, bound in enumerate(BOUNDS):
            at = bisect_right(values, bound, below)
            self.counts[bucket] += at - below
            below = at
        self.counts[-1] += len(values) - below


class RequestCounters:
    """Collects request records, and counts them in batches."""

    __slots__ = (
        "_backends",
        "_bytes_in",
        "_bytes_out",
        "_failures",
        "_phases",
        "_records",
        "_requests",
        "_retries",
    )

    def __init__(self) -> None:
        self._records: list[RequestRecord] = []  # not yet counted
        self._requests: dict[tuple[str, int, BackendAddress | None], int] = {}
        self._backends: dict[BackendAddress | None, str] = {None: "", _OTHER_ADDRESS: OTHER}
        self._failures: Counter[str] = Counter()
        self._phases = tuple(Histogram() for _ in PHASES)
        self._bytes_in = 0
        self._bytes_out = 0
        self._retries = 0

    def record(self, record: RequestRecord) -> None:
        """Collect the record of a request that has ended."""
        self._records.append(record)
        if len(self._records) >= _BATCH:
            self._count()

    def _count(self) -> None:
        records, self._records = self._records, []
        keys = Counter([(one.cluster, one.status, one.backend) for one in records])
        for key, count in keys.items():
            self._add(*key, count)
        self._failures.update([one.outcome for one in records if one.outcome])
        self._bytes_in += sum([one.bytes_in for one in records])
        self._bytes_out += sum([one.bytes_out for one in records])
        self._retries += sum([one.attempts - 1 for one in records if one.attempts > 1])
        choose, connect, answer, total = self._phases
        sent = [one for one in records if one.sent]
        chosen = [_chosen(one) for one in sent]
        choose.add([at - one.began for at, one in zip(chosen, sent, strict=True)])
        connect.add([one.sent - at for at, one in zip(chosen, sent, strict=True)])
        answer.add([one.answered - one.sent for one in sent if one.answered])
        # A WebSocket lasts for hours, so it is left out.
        total.add([one.ended - one.began for one in records if not one.upgraded])

    def report(self) -> dict[str, float]:
        """Return all counters by key."""
        self._count()
        numbers: dict[str, float] = {
            _key("retries"): self._retries,
            _key("bytes", "in"): self._bytes_in,
            _key("bytes", "out"): self._bytes_out,
        }
        for (cluster, status, backend), count in self._requests.items():
            key = _key("requests", cluster, str(status), self._backends[backend])
            numbers[key] = count
        for reason, count in self._failures.items():
            numbers[_key("failures", reason)] = count
        for phase, histogram in zip(PHASES, self._phases, strict=True):
            numbers[_key("phase_sum", phase)] = histogram.sum
            for bucket, count in enumerate(histogram.counts):
                numbers[_key("phase", phase, str(bucket))] = count
        return numbers

    def _add(self, cluster: str, status: int, backend: BackendAddress | None, count: int) -> None:
        key = (cluster, status, backend)
        if key not in self._requests:
            if backend not in self._backends and len(self._backends) < _MAX_BACKENDS + 2:
                self._backends[backend] = str(backend)
            if backend not in self._backends or len(self._requests) >= _MAX_SERIES:
                key = (cluster, status, _OTHER_ADDRESS)
        self._requests[key] = self._requests.get(key, 0) + count


def _chosen(record: RequestRecord) -> float:
    """Return when the backend was picked that the request was sent to.

    `chosen` is 0.0 if the request was sent at once; after `sent` if a later pick was not reachable.
    """
    return record.chosen if 0.0 < record.chosen <= record.sent else record.sent


def _key(*parts: str) -> str:
    return SEPARATOR.join(part.replace(SEPARATOR, " ") for part in parts)
