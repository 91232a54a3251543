"""Blocks on a disk: what was acknowledged survives damage, one process writes, and readers need no lock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from sostenuto.kvstore import BadStore, TierGone, TierLocked
from sostenuto.kvstore.tiers import DiskTier, Freed, Report, Store, disk, folder, segment

from .records import PAGE, context, flipped, put, records, served

CONTEXT = context(range(3 * PAGE + 2))
RECORDS = records(CONTEXT)
NAMES = CONTEXT.names
OTHERS = records(context(range(500, 500 + 2 * PAGE)))


def segments(path: Path) -> list[Path]:
    return sorted((path / "segments").iterdir())


def written(path: Path, *, size: int = 1 << 20) -> Path:
    """A closed tier with the records in it; the path of its first segment."""
    store = Store(path, segment=size)
    put(store, RECORDS)
    store.close()
    return segments(path)[0]


def rewrite(file: Path, data: bytes) -> None:
    """Put other bytes into a file: into a new one, since some file systems flush one that is truncated and written."""
    file.unlink()
    file.write_bytes(data)


def test_a_new_tier_is_empty_and_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.verify() == Report(blocks=0, bytes=0, marks=0, faults=(), unfinished=0)
    assert list(store.gc()) == []
    store.close()


# -- who may open


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    first = Store(tmp_path)
    with pytest.raises(TierLocked, match=f"process {os.getpid()} writes to") as locked:
        Store(tmp_path)
    assert locked.value.pid == os.getpid()
    first.close()
    Store(tmp_path).close()


def test_a_writer_in_another_process_is_named_too_and_its_death_lets_go(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from sostenuto.kvstore.tiers import Store; "
        "store = Store(pathlib.Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(TierLocked) as locked:
            Store(tmp_path)
        assert locked.value.pid == child.pid
    finally:
        child.kill()
        child.communicate()
    Store(tmp_path).close()


def test_readers_need_no_lock_and_change_nothing(tmp_path: Path) -> None:
    writer = Store(tmp_path)
    put(writer, RECORDS)
    reader = Store(tmp_path, write=False)
    assert served(reader) == RECORDS
    with pytest.raises(TierGone, match="for reading only"):
        reader.drop(NAMES)
    reader.close()
    assert served(writer) == RECORDS
    writer.close()


def test_a_reader_keeps_what_it_opened_while_the_writer_collects(tmp_path: Path) -> None:
    writer = Store(tmp_path, segment=400)
    put(writer, RECORDS)
    reader = Store(tmp_path, write=False)
    writer.drop(NAMES)
    assert sum((each for each in writer.gc()), Freed()).segments > 0
    assert served(reader) == RECORDS
    assert served(writer) == {}
    reader.close()
    writer.close()


def test_a_reader_makes_nothing_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(BadStore, match="no disk tier lies in"):
        Store(tmp_path / "none", write=False)
    assert not (tmp_path / "none").exists()


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear to somebody")
    with pytest.raises(BadStore, match="no disk tier lies in"):
        Store(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.txt"]
    for write in (True, False):
        with pytest.raises(BadStore, match="is a file"):
            Store(tmp_path / "thesis.txt", write=write)


@pytest.mark.parametrize("stray", ["abc.seg", "00000009.seg/"])
def test_what_is_no_segment_is_named_and_nothing_is_lost(tmp_path: Path, stray: str) -> None:
    written(tmp_path)
    other = tmp_path / "segments" / stray
    other.mkdir() if stray.endswith("/") else other.touch()
    for write in (True, False):
        with pytest.raises(BadStore, match=rf"{stray.rstrip('/')} is no segment of a disk tier: move it elsewhere"):
            Store(tmp_path, write=write)
    other.rmdir() if stray.endswith("/") else other.unlink()
    store = Store(tmp_path)
    assert served(store) == RECORDS
    store.close()


@pytest.mark.parametrize("name", ["segments", "marks"])
def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path, name: str) -> None:
    written(tmp_path)
    (tmp_path / name).rename(tmp_path.parent / name)
    (tmp_path / name).touch()
    for write in (True, False):
        with pytest.raises(BadStore, match=f"{name} is a file, and should be a folder"):
            Store(tmp_path, write=write)


def test_a_tier_of_another_format_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).close()
    (tmp_path / "FORMAT").write_text("sostenuto kv 9\n")
    for write in (True, False):
        with pytest.raises(BadStore, match="is of format 'sostenuto kv 9"):
            Store(tmp_path, write=write)


# -- damage


def test_a_log_cut_at_any_byte_serves_every_record_that_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment.Segment, "sync", lambda _: None)  # thousands of them; that they come is tested below
    monkeypatch.setattr(folder, "sync_folder", lambda _: None)
    file = written(tmp_path)
    data = file.read_bytes()
    store = Store(tmp_path)
    ends = {place.head.name: place.at + place.head.size for place in store.log.find(NAMES)}
    store.close()
    for length in range(len(data) + 1):
        rewrite(file, data[:length])
        store = Store(tmp_path)
        whole = {name for name, end in ends.items() if end <= length}
        assert served(store) == {name: RECORDS[name] for name in whole}
        if length % 8 == 0:  # and it goes on from there
            put(store, RECORDS)
            store.close()
            store = Store(tmp_path)
            assert served(store) == RECORDS
            assert store.log.damage == []
        store.close()


def test_a_flipped_byte_anywhere_loses_the_record_it_is_in_and_no_other(tmp_path: Path) -> None:
    file = written(tmp_path)
    data = file.read_bytes()
    store = Store(tmp_path)
    places = store.log.find(NAMES)
    store.close()
    for at in range(len(data)):
        rewrite(file, flipped(data, at))
        store = Store(tmp_path, write=False)
        hit = {place.head.name for place in places if place.at <= at < place.at + place.head.size}
        report = store.verify()
        assert len(report.faults) + (report.unfinished > 0) == len(hit)
        assert served(store) == {name: RECORDS[name] for name in NAMES if name not in hit}
        store.close()


def test_a_hole_of_zeros_loses_what_lay_in_it_and_no_more(tmp_path: Path) -> None:
    """As a file system leaves it that had made room and not yet written when the power went."""
    file = written(tmp_path)
    data = bytearray(file.read_bytes())
    store = Store(tmp_path)
    first, second, third, fourth = store.log.find(NAMES)
    store.close()
    data[second.at : third.at + 8] = bytes(third.at + 8 - second.at)
    file.write_bytes(data)
    store = Store(tmp_path)
    assert set(served(store)) == {first.head.name, fourth.head.name}
    (hole,) = store.log.damage
    assert (hole.start, hole.length, hole.unfinished) == (second.at, fourth.at - second.at, False)
    store.close()


def test_a_whole_record_in_anothers_place_is_not_served(tmp_path: Path) -> None:
    file = written(tmp_path)
    store = Store(tmp_path)
    first, second, *_ = store.log.find(NAMES)
    data = bytearray(file.read_bytes())
    data[second.at : second.end] = data[first.at : first.end]
    with file.open("r+b") as same:
        same.write(data)
    assert served(store) == {name: RECORDS[name] for name in NAMES if name != second.head.name}
    assert store.log.bad == 1
    store.close()


def test_a_segment_that_ends_too_early_is_a_fault_unless_it_is_the_last(tmp_path: Path) -> None:
    written(tmp_path, size=300)
    first, *_, last = segments(tmp_path)
    last.write_bytes(last.read_bytes()[:-1])
    store = Store(tmp_path, write=False)
    assert store.verify().faults == ()
    assert store.verify().unfinished > 0
    store.close()
    first.write_bytes(first.read_bytes()[:-65])
    store = Store(tmp_path, write=False)
    (fault,) = store.verify().faults
    assert fault.startswith("segment 00000001, bytes 0 to ")
    assert "a record was cut off" in fault
    store.close()


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_segment_that_is_gone_loses_its_own_records_only(tmp_path: Path, lost: int) -> None:
    written(tmp_path, size=300)
    files = segments(tmp_path)
    assert len(files) == 4
    files[lost].unlink()
    store = Store(tmp_path, segment=300)
    assert served(store) == {name: data for at, (name, data) in enumerate(RECORDS.items()) if at != lost}
    put(store, RECORDS)
    assert served(store) == RECORDS
    store.close()


def test_putting_what_is_there_writes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, RECORDS)
    before = store.log.size
    put(store, RECORDS)
    assert store.log.size == before
    store.close()


# -- the asynchronous face


async def test_a_cancelled_put_can_be_left_between_any_two_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_CHUNK", 1)
    tier = DiskTier.open(tmp_path)
    real = tier.store.log.append
    with anyio.CancelScope() as scope:

        def second(*what: Any) -> int:
            if len(tier.store.log.heads()) == 1:
                anyio.from_thread.run_sync(scope.cancel)
            return real(*what)

        monkeypatch.setattr(tier.store.log, "append", second)
        await tier.put(RECORDS)
    assert scope.cancelled_caught
    assert {each.name for each in await tier.entries()} == set(NAMES[:2])
    await tier.aclose()
