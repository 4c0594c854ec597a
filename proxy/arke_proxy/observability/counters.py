"""What a worker counts of its requests: plain dictionaries, made into metrics only when asked.

The keys of a report are a metric and its labels, joined by SEPARATOR: so whoever adds up the
numbers of several workers need not know what they are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter

from arke_proxy.backends.address import BackendAddress
from arke_proxy.observability.request_record import RequestRecord

SEPARATOR = "\x1f"

# Seconds. A pooled connection takes microseconds, a question to the mesh a millisecond.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
PHASES = ("choose", "connect", "answer", "total")
OTHER = "(other)"
"""The label of all backends beyond the first 200: they come and go for as long as a proxy runs."""

_AT_ONCE = 512  # records; they take half a millisecond
_MOST = 200
_MOST_SERIES = 5000  # a backend may answer with any code
_NOWHERE = BackendAddress("", 0)  # stands for all the others


class Histogram:
    """How many values are in each bucket alone, and their sum."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def add(self, values: list[float]) -> None:
        """Add many: sorting them costs less than finding the bucket of each."""
        values.sort()
        self.sum += sum(values)
        below = 0
        for bucket, bound in enumerate(BOUNDS):
            at = bisect_right(values, bound, below)
            self.counts[bucket] += at - below
            below = at
        self.counts[-1] += len(values) - below


class RequestCounters:
    """Takes records at the price of an append, and counts many at a time."""

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
        self._records: list[RequestRecord] = []  # not counted yet
        self._requests: dict[tuple[str, int, BackendAddress | None], int] = {}
        self._backends: dict[BackendAddress | None, str] = {None: "", _NOWHERE: OTHER}
        self._failures: Counter[str] = Counter()
        self._phases = tuple(Histogram() for _ in PHASES)
        self._bytes_in = 0
        self._bytes_out = 0
        self._retries = 0

    def record(self, record: RequestRecord) -> None:
        """Count a request that has ended, soon."""
        self._records.append(record)
        if len(self._records) >= _AT_ONCE:
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
        # A WebSocket's hours are not a request's.
        total.add([one.ended - one.began for one in records if not one.upgraded])

    def report(self) -> dict[str, float]:
        """Return every count under its key."""
        self._count()
        numbers: dict[str, float] = {
            _key("retries"): self._retries,
            _key("octets", "in"): self._bytes_in,
            _key("octets", "out"): self._bytes_out,
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
            if backend not in self._backends and len(self._backends) < _MOST + 2:
                self._backends[backend] = str(backend)
            if backend not in self._backends or len(self._requests) >= _MOST_SERIES:
                key = (cluster, status, _NOWHERE)
        self._requests[key] = self._requests.get(key, 0) + count


def _chosen(record: RequestRecord) -> float:
    """Return when the backend was chosen that the request was sent to.

    Where it and a connection were at hand, that was at once; one chosen later was not reached.
    """
    return record.chosen if 0.0 < record.chosen <= record.sent else record.sent


def _key(*parts: str) -> str:
    return SEPARATOR.join(part.replace(SEPARATOR, " ") for part in parts)
