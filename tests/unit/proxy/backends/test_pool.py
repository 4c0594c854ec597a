from __future__ import annotations

from arke_proxy.backends.address import BackendAddress
from arke_proxy.backends.pool import Pool

HERE = BackendAddress("127.0.0.2", 80)
THERE = BackendAddress("127.0.0.3", 80)


def test_most_recently_used_connection_is_taken_first() -> None:
    pool: Pool[str] = Pool(limit=2, idle_timeout=4.0)
    assert pool.give(HERE, "old", 1.0)
    assert pool.give(HERE, "new", 2.0)
    assert pool.take(THERE) is None
    assert [pool.take(HERE), pool.take(HERE), pool.take(HERE)] == ["new", "old", None]


def test_pool_limit_is_per_backend() -> None:
    pool: Pool[str] = Pool(limit=1, idle_timeout=4.0)
    assert pool.give(HERE, "a", 1.0)
    assert not pool.give(HERE, "b", 1.0)
    assert pool.give(THERE, "c", 1.0)
    assert len(pool) == 2


def test_connections_expire_after_idle_timeout() -> None:
    pool: Pool[str] = Pool(limit=9, idle_timeout=4.0)
    pool.give(HERE, "a", 1.0)
    pool.give(HERE, "b", 2.0)
    pool.give(THERE, "c", 1.5)
    assert pool.expired(4.9) == []
    assert sorted(pool.expired(5.5)) == ["a", "c"]
    assert pool.take(HERE) == "b"
    assert pool.expired(99.0) == []


def test_closed_connection_is_forgotten() -> None:
    pool: Pool[str] = Pool(limit=9, idle_timeout=4.0)
    pool.forget(HERE, "a")
    pool.give(HERE, "a", 1.0)
    pool.give(HERE, "b", 1.0)
    pool.forget(HERE, "b")
    assert pool.take(HERE) == "a"


def test_purge_removes_all_connections_of_a_backend() -> None:
    pool: Pool[str] = Pool(limit=9, idle_timeout=4.0)
    for name in "abc":
        pool.give(HERE, name, 1.0)
    pool.give(THERE, "d", 1.0)
    assert pool.purge(HERE) == ["a", "b", "c"]
    assert pool.purge(HERE) == []
    assert pool.clear() == ["d"]
    assert len(pool) == 0


def test_evict_removes_longest_idle_connection() -> None:
    pool: Pool[str] = Pool(limit=9, idle_timeout=4.0)
    assert pool.evict() is None
    pool.give(HERE, "b", 2.0)
    pool.give(THERE, "a", 1.0)
    pool.give(THERE, "c", 3.0)
    assert [pool.evict() for _ in range(4)] == ["a", "b", "c", None]
