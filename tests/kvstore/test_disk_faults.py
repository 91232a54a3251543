"""A disk that crashes, fills up or fails at any call: what was acknowledged stays, what was not is refused."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sostenuto.kvstore import BlockHash, TierFull, TierGone, peek
from sostenuto.kvstore.tiers import Counts, DiskTier, Store, segment

from .broken_os import BrokenOs, Crash
from .records import PAGE, context, put, records, served

CONTEXT = context(range(3 * PAGE + 2))
RECORDS = records(CONTEXT)
NAMES = CONTEXT.names
OTHERS = records(context(range(500, 500 + 2 * PAGE)))
MARKED = ["fsync", "replace", "fsync"]
"""A file that appears whole."""


def crashes(
    path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Store], None], work: Callable[[Store], None]
) -> list[Store]:
    """The tier as it is found after `work` was cut short before each of its calls to the system, and after all."""
    found = []
    for at in range(1000):
        store = Store(path / str(at), segment=400)
        prepare(store)
        with monkeypatch.context() as patch:
            broken = BrokenOs(patch, at)
            try:
                work(store)
                done = True
            except Crash:
                done = False
            broken.mend()
        store.close()
        found.append(Store(path / str(at), segment=400))
        if done:
            return found
    raise AssertionError("it makes no end of calls")


def test_a_put_that_crashes_at_any_call_leaves_whole_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = crashes(tmp_path, monkeypatch, lambda store: put(store, OTHERS), lambda store: put(store, RECORDS))
    assert len(found) > 8
    for store in found:
        held = served(store)
        assert held.items() >= OTHERS.items()
        assert held.items() <= (OTHERS | RECORDS).items()
    assert served(found[-1]) == OTHERS | RECORDS
    for store in found:
        store.close()


def test_a_collection_that_crashes_at_any_call_loses_nothing_and_brings_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(store: Store) -> None:
        put(store, RECORDS)
        put(store, OTHERS)
        store.drop((NAMES[0], NAMES[2]))

    expected = {NAMES[1]: RECORDS[NAMES[1]], NAMES[3]: RECORDS[NAMES[3]], **OTHERS}
    found = crashes(tmp_path, monkeypatch, prepare, lambda store: [*store.gc()].clear())
    assert len(found) > 6
    for store in found:
        assert served(store) == expected
        for _ in store.gc():
            pass
        assert served(store) == expected
        _, size, live = store.log.size
        assert size == live
        store.close()


# -- what is settled before what


def calls(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> list[str]:
    """The calls that change or settle files, in their order."""
    with monkeypatch.context() as patch:
        counted = BrokenOs(patch)
        work()
    return counted.calls


def test_a_put_is_acknowledged_after_its_bytes_are_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    made = calls(monkeypatch, lambda: put(store, RECORDS))
    # A new segment is settled in its folder, then come the records, then all of them are settled at once.
    assert made == ["fsync", *["pwritev"] * len(RECORDS), "fdatasync"]
    assert calls(monkeypatch, lambda: put(store, RECORDS)) == []
    store.close()


@pytest.mark.parametrize(
    ("work", "after"),
    [(lambda store: put(store, RECORDS), []), (lambda store: store.keep("noon", CONTEXT), MARKED)],
    ids=["put", "keep"],
)
def test_what_an_earlier_writer_left_unsettled_is_settled_before_it_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: Callable[[Store], None], after: list[str]
) -> None:
    """A writer that was killed has written records that can be read, from the memory of a machine that may crash."""
    killed = Store(tmp_path, segment=400)
    killed.log.append(RECORDS, {name: peek(data) for name, data in RECORDS.items()})
    segments, _, _ = killed.log.size
    killed.close()
    assert segments > 1
    opened = calls(monkeypatch, lambda: Store(tmp_path, segment=400).close())
    assert opened.count("fsync") == 3, "which segments and snapshots there are, and their own folder's files"
    store = Store(tmp_path, segment=400)
    assert calls(monkeypatch, lambda: work(store)) == [*["fdatasync"] * segments, *after]
    assert calls(monkeypatch, lambda: work(store)) == after
    store.close()


def test_the_folders_that_are_made_for_a_store_are_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store: list[Store] = []
    made = calls(monkeypatch, lambda: store.append(Store(tmp_path / "one" / "two")))
    # In the folder that was there and in the new one; its own two; it itself; its format, which appears whole.
    locked = ["ftruncate", "pwrite"]
    assert made == ["fsync", "fsync", *locked, "fsync", "fsync", "fsync", *MARKED]
    store[0].close()


async def test_the_asynchronous_put_is_settled_too_when_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = DiskTier.open(tmp_path)
    with monkeypatch.context() as patch:
        counted = BrokenOs(patch)
        await tier.put(RECORDS)
    assert counted.calls == ["fsync", *["pwritev"] * len(RECORDS), "fdatasync"]
    assert tier.counts == Counts(put=4)
    await tier.aclose()


def test_a_snapshot_appears_after_its_blocks_and_its_file_are_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.log.append(RECORDS, {name: peek(data) for name, data in RECORDS.items()})
    made = calls(monkeypatch, lambda: store.keep("noon", CONTEXT))
    assert made == ["fdatasync", "fsync", "replace", "fsync"]
    store.close()


def test_a_segment_goes_after_what_was_copied_out_of_it_is_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    put(store, RECORDS)
    store.drop(NAMES[:1])
    made = calls(monkeypatch, lambda: list(store.gc()))
    assert made == ["fsync", *["pwritev"] * (len(RECORDS) - 1), "fdatasync", "fdatasync", "unlink", "fsync"]
    store.close()


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """The call `name` of the disk tier's files fails with this errno, a write after half of it."""

    class Failing(BrokenOs):
        def __getattr__(self, asked: str) -> Any:
            if asked != name:
                return getattr(os, asked)

            def fail(file: int, *rest: Any) -> None:
                if name == "pwritev":
                    os.pwrite(file, bytes(rest[0][0][:40]), rest[1])
                raise OSError(number, os.strerror(number))

            return fail

    Failing(monkeypatch)


def test_a_full_disk_refuses_the_block_and_keeps_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    put(store, RECORDS)
    (file,) = (tmp_path / "segments").iterdir()
    before = file.read_bytes()
    with monkeypatch.context() as patch:
        failing(patch, "pwritev", errno.ENOSPC)
        with pytest.raises(TierFull, match="No space left"):
            put(store, OTHERS)
        assert file.read_bytes() == before
        store.drop(NAMES[:1])  # to forget takes no room
    assert served(store) == {name: RECORDS[name] for name in NAMES[1:]}
    put(store, OTHERS)
    store.close()
    store = Store(tmp_path)
    assert store.log.damage == []
    assert served(store) == RECORDS | OTHERS  # the drop could not be written down; that is harmless
    store.close()


def test_after_a_failed_fsync_nothing_is_acknowledged_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        failing(patch, "fdatasync", errno.EIO)
        with pytest.raises(TierGone, match="could not be written"):
            put(store, RECORDS)
    with pytest.raises(TierGone, match="could not be written"):
        put(store, OTHERS)
    store.close()


@pytest.mark.parametrize(("name", "fault"), [("open", TierFull), ("fsync", TierGone)])
def test_a_segment_that_cannot_be_begun_is_the_tiers_own_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fault: type[Exception]
) -> None:
    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        failing(patch, name, errno.EMFILE)
        with pytest.raises(fault, match="segments"):
            put(store, RECORDS)
    store.close()
    store = Store(tmp_path)
    put(store, RECORDS)
    assert served(store) == RECORDS
    store.close()


def test_one_fsync_serves_all_who_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    log = store.log
    begun, go_on = threading.Event(), threading.Event()
    syncs = []
    real = segment.Segment.sync

    def slow(each: segment.Segment) -> None:
        syncs.append(each)
        begun.set()
        assert go_on.wait(30)
        real(each)

    monkeypatch.setattr(segment.Segment, "sync", slow)
    ready = threading.Barrier(4)

    def late(name: BlockHash) -> None:
        log.append({name: RECORDS[name]}, {name: peek(RECORDS[name])})
        ready.wait(30)
        log.sync()

    first = threading.Thread(target=put, args=(store, OTHERS))
    first.start()
    assert begun.wait(30)
    others = [threading.Thread(target=late, args=(name,)) for name in NAMES[:3]]
    for thread in others:
        thread.start()
    ready.wait(30)
    go_on.set()
    for thread in (first, *others):
        thread.join(30)
    assert len(syncs) == 2
    store.close()
