"""Garbage on a disk is given back, by hand or by itself, and nothing that is served goes with it."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from sostenuto.kvstore import TierFull
from sostenuto.kvstore.tiers import DiskTier, Freed, Store
from sostenuto.kvstore.tiers.log import Log

from .records import PAGE, context, flipped, put, records, served
from .test_disk import NAMES, OTHERS, RECORDS, segments, written


def test_what_was_dropped_is_given_back_to_the_disk(tmp_path: Path) -> None:
    store = Store(tmp_path, segment=400)
    put(store, RECORDS)
    put(store, OTHERS)
    before = sum(file.stat().st_size for file in segments(tmp_path))
    store.drop(NAMES)
    freed = sum((each for each in store.gc()), Freed())
    after = sum(file.stat().st_size for file in segments(tmp_path))
    assert served(store) == OTHERS
    assert after < before
    assert after == store.log.size[1] == store.log.size[2]
    assert list(store.gc()) == []
    assert freed.segments > 0
    store.close()


def test_only_segments_with_more_garbage_than_asked_are_rewritten(tmp_path: Path) -> None:
    store = Store(tmp_path, segment=1 << 20)
    put(store, RECORDS)
    store.drop(NAMES[:1])
    assert list(store.gc(0.9)) == []
    assert len(list(store.gc(0.1))) == 1
    store.close()


def test_a_drop_is_not_undone_by_collecting_where_it_was_written(tmp_path: Path) -> None:
    """The tombstone outlives its segment as long as an older segment still has the block."""
    store = Store(tmp_path, segment=700)
    put(store, RECORDS)  # two segments, in each some live block
    store.drop(NAMES[:1])
    put(store, OTHERS)
    store.drop(OTHERS)
    first = min(store.log.garbage())
    late = [number for number in store.log.garbage() if number != first]
    assert late
    for number in late:
        store.log.rewrite(number)
    expected = {name: RECORDS[name] for name in NAMES[1:]}
    assert served(store) == expected
    store.close()
    store = Store(tmp_path, segment=700)
    assert served(store) == expected
    store.close()


def test_collecting_leaves_damaged_records_behind_and_counts_them(tmp_path: Path) -> None:
    file = written(tmp_path)
    file.write_bytes(flipped(file.read_bytes()))  # in the last record's payload
    store = Store(tmp_path)
    store.drop(NAMES[:1])
    freed = sum((each for each in store.gc()), Freed())
    assert freed.bad == 1
    assert served(store) == {name: RECORDS[name] for name in NAMES[1:3]}
    assert store.verify().faults == ()
    store.close()


async def test_two_may_collect_at_once_while_others_put_and_get(tmp_path: Path) -> None:
    tier = DiskTier.open(tmp_path, segment=400)
    await tier.put(RECORDS)
    await tier.put(OTHERS)
    await tier.drop(NAMES[::2])
    freed: list[Freed] = []

    async def collect() -> None:
        freed.append(await tier.gc(0))

    async def use() -> None:
        for _ in range(5):
            await tier.put({NAMES[0]: RECORDS[NAMES[0]]})
            assert set(await tier.get((*NAMES, *OTHERS))) == {NAMES[0], *NAMES[1::2], *OTHERS}
            await tier.drop(NAMES[:1])

    async with anyio.create_task_group() as group:
        for each in (collect, collect, use, collect):
            group.start_soon(each)
    assert sum(each.segments for each in freed) >= 1
    await tier.gc(0)
    assert {name: bytes(data) for name, data in (await tier.get((*NAMES, *OTHERS))).items()} == {
        **{name: RECORDS[name] for name in NAMES[1::2]},
        **OTHERS,
    }
    _, size, live = tier.store.log.size
    assert size == live
    await tier.aclose()


async def test_the_tier_collects_and_says_what_it_freed(tmp_path: Path) -> None:
    tier = DiskTier.open(tmp_path)
    await tier.put(RECORDS)
    await tier.drop(NAMES)
    freed = await tier.gc()
    assert (freed.segments, freed.bad) == (1, 0)
    assert freed.bytes > sum(map(len, RECORDS.values()))
    await tier.aclose()


async def test_files_stay_within_twice_of_what_is_served_whatever_is_put_and_dropped(tmp_path: Path) -> None:
    tier = DiskTier.open(tmp_path, segment=4096)
    contexts = [context(range(first, first + 3 * PAGE)) for first in range(0, 4000, 100)]
    for number, each in enumerate(contexts):
        await tier.put(records(each))
        if number >= 3:
            await tier.drop(contexts[number - 3].names)
        _, size, live = tier.store.log.size
        assert size <= 2 * live + 4096 // 8 + 4096  # the last segment is begun anew only when it is full
    kept = {name: data for each in contexts[-3:] for name, data in records(each).items()}
    assert served(tier.store) == kept
    await tier.aclose()


async def test_a_disk_without_room_for_copies_is_made_smaller_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = DiskTier.open(tmp_path, segment=400)
    await tier.put(RECORDS)
    await tier.put(OTHERS)

    def full(log: Log, number: int) -> Freed:
        raise TierFull("no room")

    with monkeypatch.context() as patch:
        patch.setattr(Log, "rewrite", full)
        await tier.drop(NAMES)
    bloated = [tier.store.log.bloated]
    await tier.drop(NAMES)
    assert [*bloated, tier.store.log.bloated] == [True, False]
    assert served(tier.store) == OTHERS
    await tier.aclose()
