"""A process is killed while it writes: what it acknowledged is there bit for bit, nothing else is half there."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
from pathlib import Path

import pytest

from sostenuto.kvstore import check, unpack
from sostenuto.kvstore.tiers import Store

from .killed_writer import SEGMENT, snapshot
from .records import records, seal

TENANT = seal().tenant


def killed(path: Path, number: int, chance: random.Random) -> list[str]:
    """Let a writer begin at `number` and kill it somewhere; what it said until then."""
    child = subprocess.Popen(
        [sys.executable, "-m", "sostenuto.tests.kvstore.killed_writer", str(path), str(number)], stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        heard = b""
        lines = chance.randrange(20)
        while heard.count(b"\n") < lines:
            more = os.read(child.stdout.fileno(), 64)
            assert more, "the writer ended by itself"
            heard += more
        # And then somewhere between two of its system calls: nothing depends on how long this takes.
        select.select([], [], [], chance.random() * 0.02)
    finally:
        child.kill()
        heard += child.communicate()[0]
    return heard.decode().split("\n")[:-1]


def look(path: Path, acknowledged: set[int], leaving: set[int]) -> int:
    """Compare everything with what was said; the number to go on with."""
    store = Store(path, segment=SEGMENT)
    try:
        keys = {int(key.removeprefix("turn ")) for key in store.marks.keys(TENANT)}
        assert acknowledged - leaving <= keys
        for number in keys:
            mark = store.find(TENANT, f"turn {number}")
            assert mark is not None
            assert mark.parked == snapshot(number)
            found = store.log.read(store.log.find(mark.parked.names))
            expected = records(mark.parked, size=100)
            assert {name: bytes(data) for name, data in found.items()} == expected
            for link in mark.parked.links():
                check(unpack(found[link.name]), link, mark.parked.seal)
        assert store.verify().faults == ()
        return max(keys | acknowledged, default=-1) + 1
    finally:
        store.close()


def many(path: Path, times: int, seed: int) -> None:
    chance = random.Random(seed)
    acknowledged: set[int] = set()
    leaving: set[int] = set()
    number = 0
    for _ in range(times):
        for line in killed(path, number, chance):
            word, which = line.split(" ")
            (acknowledged if word == "kept" else leaving).add(int(which))
        number = look(path, acknowledged, leaving)
    assert acknowledged, "nothing was ever acknowledged: this proved nothing"
    assert leaving


def test_twenty_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    many(tmp_path / "tier", 20, seed=5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    many(tmp_path / "tier", 200, seed=6)
