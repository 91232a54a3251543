"""Durable marks on disks that are full, and on disks that lose what they were given."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from sostenuto.kvstore import Incomplete, Parked, TierFull
from sostenuto.kvstore.tiers import DiskTier, Store, segment
from sostenuto.runtime.below import Below
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.host import Host
from sostenuto.runtime.session import Session

from .conftest import Pair, draw


def opened(tiny: Pair, disk: DiskTier, tokens: int | None = None) -> Host:
    return Host(TorchEngine(tiny.ours, pool_tokens=256), below=[Below(disk, tokens)])


def test_a_disk_that_is_full_refuses_a_durable_mark_and_takes_it_when_there_is_room(
    tiny: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """The module `os`, with a disk that takes nothing more."""

        def __getattr__(self, name: str) -> Any:
            return self._refuse if name == "pwritev" else getattr(os, name)

        def _refuse(self, *arguments: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with opened(tiny, DiskTier.open(tmp_path)) as host, Session(host) as session:
        session.feed(draw(60))
        session.generate(max_tokens=9)
        with monkeypatch.context() as patch:
            patch.setattr(segment, "os", Full())
            with pytest.raises(TierFull, match="No space left on device"):
                session.mark("noon", durable=True)
            assert host.saved.keys(tenant="default") == []
            assert repr(session) == "<Session 69 tokens, 9 of an answer | 0 forks, 0 marks>"
        session.mark("noon", durable=True)
        expected = session.generate(max_tokens=9)
    with opened(tiny, DiskTier.open(tmp_path)) as host, Session.restore(host, "noon") as session:
        answer = session.generate(max_tokens=9)
        assert (answer.tokens, answer.facts.computed_tokens) == (expected.tokens, 1)


def test_what_the_disk_has_lost_before_a_durable_mark_is_copied_once_more(tiny: Pair, tmp_path: Path) -> None:
    disk = DiskTier.open(tmp_path)
    with opened(tiny, disk) as host, Session(host) as session:
        session.feed(draw(60))
        session.generate(max_tokens=9)
        session.mark("noon", durable=True)
        host.saved.forget("noon", tenant="default")
        disk.store.drop([entry.name for entry in disk.store.log.heads()][2:5])
        session.mark("noon", durable=True)
    with opened(tiny, DiskTier.open(tmp_path)) as host, Session.restore(host, "noon") as session:
        assert session.generate(max_tokens=9).facts.computed_tokens == 1


def test_a_disk_that_loses_what_it_was_just_given_is_asked_twice_and_no_more(
    tiny: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def keep(store: Store, key: str, parked: Parked) -> None:
        asked.append(key)
        raise Incomplete(key, 1, len(parked.names))

    monkeypatch.setattr(Store, "keep", keep)
    with opened(tiny, DiskTier.open(tmp_path)) as host, Session(host) as session:
        session.feed(draw(60))
        session.generate(max_tokens=9)
        with pytest.raises(Incomplete, match="needs 9 blocks and 1 are not in the tier"):
            session.mark("noon", durable=True)
    assert asked == ["noon", "noon"]


def test_what_is_saved_stays_in_a_store_with_an_end_and_is_gone_on_with(tiny: Pair, tmp_path: Path) -> None:
    disk = DiskTier.open(tmp_path)
    with opened(tiny, disk, 80) as host:
        for number in range(6):
            with Session(host) as session:
                session.feed(draw(60, seed=number))
                session.generate(max_tokens=9)
                session.mark(f"day {number}", durable=True)
        assert host.loop.kernel.moves.elsewhere.count("disk") <= 10
        with Session.restore(host, "day 5") as session:
            session.feed(draw(9))
        host.saved.forget("day 0", tenant="default")
    with opened(tiny, DiskTier.open(tmp_path), 80) as host:
        assert host.loop.kernel.moves.elsewhere.count("disk") <= 10
        for number in range(1, 6):
            with Session.restore(host, f"day {number}") as session:
                answer = session.generate(max_tokens=9)
                assert (answer.facts.computed_tokens, answer.facts.tier) == (1, "disk")


def test_a_conversation_that_a_store_has_no_room_for_is_refused(tiny: Pair, tmp_path: Path) -> None:
    with opened(tiny, DiskTier.open(tmp_path), 64) as host, Session(host) as session:
        session.feed(draw(60))
        session.generate(max_tokens=9)
        with pytest.raises(TierFull, match="of 68 tokens takes 9 blocks, and the store has room for 8"):
            session.mark("noon", durable=True)
        assert host.saved.keys(tenant="default") == []


def test_what_is_forgotten_gives_its_room_back_by_itself(tiny: Pair, tmp_path: Path) -> None:
    disk = DiskTier.open(tmp_path, segment=128 << 10)
    with opened(tiny, disk, 80) as host:
        for number in range(20):
            with Session(host) as session:
                session.feed(draw(60, seed=number))
                session.generate(max_tokens=9)
                session.mark(f"day {number}", durable=True)
        for number in range(20):
            host.saved.forget(f"day {number}", tenant="default")
        _, size, live = disk.store.log.size
        assert not disk.store.log.bloated
        assert size <= 2 * live + 2 * (128 << 10)
