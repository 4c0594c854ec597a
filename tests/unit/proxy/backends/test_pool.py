from __future__ import annotations

from arke_proxy.backends.address import BackendAddress
from arke_proxy.backends.pool import Pool

HERE = BackendAddress("127.0.0.2", 80)
THERE = BackendAddress("127.0.0.3", 80)


def test_the_freshest_is_taken_first() -> None:
    pool: Pool[str] = Pool(limit=2, seconds=4.0)
    assert pool.give(HERE, "old", 1.0)
    assert pool.give(HERE, "new", 2.0)
    assert pool.take(THERE) is None
    assert [pool.take(HERE), pool.take(HERE), pool.take(HERE)] == ["new", "old", None]


def test_only_so_many_are_kept_for_each_backend() -> None:
    pool: Pool[str] = Pool(limit=1, seconds=4.0)
    assert pool.give(HERE, "a", 1.0)
    assert not pool.give(HERE, "b", 1.0)
    assert pool.give(THERE, "c", 1.0)
    assert len(pool) == 2


def test_the_old_are_given_up() -> None:
    pool: Pool[str] = Pool(limit=9, seconds=4.0)
    pool.give(HERE, "a", 1.0)
    pool.give(HERE, "b", 2.0)
    pool.give(THERE, "c", 1.5)
    assert pool.expired(4.9) == []
    assert sorted(pool.expired(5.5)) == ["a", "c"]
    assert pool.take(HERE) == "b"
    assert pool.expired(99.0) == []


def test_what_has_ended_is_forgotten() -> None:
    pool: Pool[str] = Pool(limit=9, seconds=4.0)
    pool.forget(HERE, "a")
    pool.give(HERE, "a", 1.0)
    pool.give(HERE, "b", 1.0)
    pool.forget(HERE, "b")
    assert pool.take(HERE) == "a"


def test_a_dead_host_loses_all_of_its_connections() -> None:
    pool: Pool[str] = Pool(limit=9, seconds=4.0)
    for name in "abc":
        pool.give(HERE, name, 1.0)
    pool.give(THERE, "d", 1.0)
    assert pool.purge(HERE) == ["a", "b", "c"]
    assert pool.purge(HERE) == []
    assert pool.clear() == ["d"]
    assert len(pool) == 0


def test_the_one_that_idled_longest_can_be_spared() -> None:
    pool: Pool[str] = Pool(limit=9, seconds=4.0)
    assert pool.spare() is None
    pool.give(HERE, "b", 2.0)
    pool.give(THERE, "a", 1.0)
    pool.give(THERE, "c", 3.0)
    assert [pool.spare() for _ in range(4)] == ["a", "b", "c", None]
