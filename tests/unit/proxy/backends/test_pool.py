from __future__ import annotations

from arke_proxy.backends.address import BackendAddress
from arke_proxy.backends.pool import Pool

ONE = BackendAddress("127.0.0.2", 80)
TWO = BackendAddress("127.0.0.3", 80)


def test_most_recently_used_connection_is_taken_first() -> None:
    pool: Pool[str] = Pool(limit=2, idle_timeout=4.0)
    assert pool.give(ONE, "old", 1.0)
    assert pool.give(ONE, "new", 2.0)
    assert pool.take(TWO) is None
    assert [pool.take(ONE), pool.take(ONE), pool.take(ONE)] == ["new", "old", None]


def test_pool_limit_is_per_backend() -> None:
    pool: Pool[str] = Pool(limit=1, idle_timeout=4.0)
    assert pool.give(ONE, "a", 1.0)
    assert not pool.give(ONE, "b", 1.0)
    assert pool.give(TWO, "c", 1.0)
    assert len(pool) == 2


def test_connections_expire_after_idle_timeout() -> None:
    pool: Pool[str] = Pool(limit=9, idle_timeout=4.0)
    pool.give(ONE, "a", 1.0)
    pool.give(ONE, "b", 2.0)
    pool.give(TWO, "c", 1.5)
    assert pool.expired(4.9) == []
    assert sorted(pool.expired(5.5)) == ["a", "c"]
    assert pool.take(ONE) == "b"
    assert pool.expired(99.0) == []


def test_closed_connection_is_forgotten() -> None:
    pool: Pool[str] = Pool(limit=9, idle_timeout=4.0)
    pool.forget(ONE, "a")
    pool.give(ONE, "a", 1.0)
    pool.give(ONE, "b", 1.0)
    pool.forget(ONE, "b")
    assert pool.take(ONE) == "a"


def test_purge_removes_all_connections_of_a_backend() -> None:
    pool: Pool[str] = Pool(limit=9, idle_timeout=4.0)
    for name in "abc":
        pool.give(ONE, name, 1.0)
    pool.give(TWO, "d", 1.0)
    assert pool.purge(ONE) == ["a", "b", "c"]
    assert pool.purge(ONE) == []
    assert pool.clear() == ["d"]
    assert len(pool) == 0


def test_evict_removes_longest_idle_connection() -> None:
    pool: Pool[str] = Pool(limit=9, idle_timeout=4.0)
    assert pool.evict() is None
    pool.give(ONE, "b", 2.0)
    pool.give(TWO, "a", 1.0)
    pool.give(TWO, "c", 3.0)
    assert [pool.evict() for _ in range(4)] == ["a", "b", "c", None]
