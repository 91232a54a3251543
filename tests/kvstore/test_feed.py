"""Events of an index: a listener that hears them all can rebuild it exactly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sostenuto.kvstore import (
    AllBlocksCleared,
    BlockHash,
    BlockRemoved,
    BlockStored,
    Branch,
    BrokenBooks,
    Feed,
    FeedEvent,
    Ledger,
    Listener,
    Mirror,
    chain,
    holdings,
    root,
)
from sostenuto.kvstore.feed import event, plain

from .room import PAGE, ROOT, leave, write


def listened(room: int = 8) -> tuple[Ledger, Feed]:
    feed = Feed()
    listener: Listener = feed
    ledger = Ledger(room, PAGE)
    ledger.listen(listener)
    return ledger, feed


def test_blocks_of_a_context_are_one_event_with_parent_tokens_and_session() -> None:
    ledger, feed = listened()
    write(ledger, range(10), session="s")
    one, two = chain(range(8), PAGE, ROOT)
    assert feed.drain() == (BlockStored((one, two), ROOT, tuple(range(8)), PAGE, "device", "s"),)
    assert feed.drain() == ()


def test_what_others_did_or_where_it_happened_elsewhere_is_an_event_of_its_own() -> None:
    ledger, feed = listened()
    write(ledger, range(4), session="s")
    write(ledger, range(8), session="t")
    stored = [each for each in feed.drain() if isinstance(each, BlockStored)]
    assert [(len(each.block_hashes), each.session_id) for each in stored] == [(1, "s"), (1, "t")]
    removed = [BlockRemoved((BlockHash(b"n"),), medium) for medium in ("device", "host", "host")]
    for each in removed:
        feed(each)
    assert feed.drain() == (removed[0], BlockRemoved((BlockHash(b"n"), BlockHash(b"n")), "host"))


def test_a_fork_tells_its_session_and_what_it_goes_on_from() -> None:
    ledger, feed = listened()
    parent = write(ledger, range(4), session="s")
    child = parent.fork()
    feed.drain()
    child.reserve(4)
    child.append([9] * 4)
    (stored,) = feed.drain()
    assert isinstance(stored, BlockStored)
    assert (stored.parent_block_hash, stored.session_id) == (chain(range(4), PAGE, ROOT)[0], "s")


def test_unfinished_blocks_are_no_events_and_an_evicted_one_is_removed_once() -> None:
    ledger, feed = listened(2)
    leave(ledger, range(6))
    assert len(feed.drain()) == 1
    ledger.alloc(1)
    assert feed.drain() == ()  # the tail
    ledger.alloc(1)
    assert feed.drain() == (BlockRemoved(chain(range(4), PAGE, ROOT)),)


def test_a_cut_block_is_removed_because_it_has_no_name_any_more() -> None:
    ledger, feed = listened(2)
    branch = write(ledger, range(8))
    branch.rollback(6)
    feed.drain()
    branch.reserve(1)  # in place: there is no other page
    assert feed.drain() == (BlockRemoved(chain(range(8), PAGE, ROOT)[1:]),)


def test_clearing_is_one_event_and_says_so_when_nothing_is_left() -> None:
    ledger, feed = listened()
    user = write(ledger, [7] * 4)
    leave(ledger, range(8))
    feed.drain()
    ledger.clear()
    (removed,) = feed.drain()
    assert isinstance(removed, BlockRemoved)
    assert set(removed.block_hashes) == set(chain(range(8), PAGE, ROOT))
    user.close()
    ledger.clear()
    assert feed.drain() == (AllBlocksCleared("device"),)


def test_a_mirror_counts_twins_and_keeps_media_apart() -> None:
    mirror = Mirror()
    name = BlockHash(b"n")
    for medium in ("device", "device", "host"):
        mirror.apply(BlockStored((name,), ROOT, (1, 2, 3, 4), PAGE, medium))
    mirror.apply(BlockRemoved((name,)))
    assert [mirror.blocks(medium)[name].copies for medium in ("device", "host")] == [1, 1]
    mirror.apply(AllBlocksCleared("device"))
    assert (mirror.blocks(), len(mirror.blocks("host"))) == ({}, 1)
    mirror.apply(AllBlocksCleared())
    assert mirror.blocks("host") == {}


def test_a_mirror_that_missed_events_says_so_and_changes_nothing() -> None:
    mirror = Mirror()
    name, other = BlockHash(b"n"), BlockHash(b"o")
    mirror.apply(BlockStored((name,), ROOT, (1, 2, 3, 4), PAGE))
    before = dict(mirror.blocks())
    for wrong in (
        BlockRemoved((name, other)),
        BlockRemoved((name, name)),
        BlockStored((name,), ROOT, (1, 2, 3, 5), PAGE),
        BlockStored((other, name), ROOT, (0, 0, 0, 0, 1, 2, 3, 4), PAGE),
        BlockStored((other,), ROOT, (1, 2, 3), PAGE),
    ):
        with pytest.raises(BrokenBooks):
            mirror.apply(wrong)
        assert mirror.blocks() == before


def test_events_survive_json_and_newer_fields_are_ignored() -> None:
    name = BlockHash(b"\x00\xff")
    events: list[FeedEvent] = [
        BlockStored((name,), root(model="m"), (1, 2, 3, 4), PAGE, "disk", "s"),
        BlockRemoved((name,), "host"),
        AllBlocksCleared(),
    ]
    assert [event(json.loads(json.dumps(plain(each)))) for each in events] == events
    assert event({**plain(events[0]), "group_idx": 0}) == events[0]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ({"type": "BlockMoved"}, "one of BlockStored, BlockRemoved, AllBlocksCleared; found 'BlockMoved'"),
        ({}, "found None"),
        ({"type": "BlockStored", "block_hashes": []}, "a BlockStored is not whole"),
        ({"type": "BlockRemoved", "block_hashes": ["x"]}, "hexadecimal"),
    ],
)
def test_what_is_no_event_is_refused(data: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        event(data)


def test_without_a_listener_nothing_is_made_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(*_: object, **__: object) -> None:
        raise AssertionError("an event was made")

    for kind in ("BlockStored", "BlockRemoved", "AllBlocksCleared"):
        monkeypatch.setattr(f"sostenuto.kvstore.index.{kind}", made)
    ledger = Ledger(2, PAGE)
    leave(ledger, range(8))
    ledger.alloc(1)
    assert ledger.clear() == 1


moves = st.lists(
    st.tuples(
        st.sampled_from(["write", "twin", "fork", "back", "close", "clear"]),
        st.integers(0, 7),
        st.lists(st.integers(0, 1), max_size=14),
    ),
    max_size=40,
)


@given(moves, st.integers(1, 9))
def test_an_index_rebuilt_from_events_equals_the_ledgers(moves: list[tuple[str, int, list[int]]], every: int) -> None:
    ledger, feed = listened(12)
    mirror = Mirror()
    open_: list[Branch] = []
    for number, (move, which, tokens) in enumerate(moves):
        branch = open_[which % len(open_)] if open_ else None
        if move in ("write", "twin"):
            new = Branch.resume(ledger, ROOT, tokens) if move == "write" else Branch(ledger, ROOT)
            rest = tokens[len(new) :]
            if -(-len(tokens) // PAGE) < ledger.available:
                new.reserve(len(rest))
                new.append(rest)
            open_.append(new)
        elif move == "clear":
            ledger.clear()
        elif branch is not None and move == "fork":
            open_.append(branch.fork())
        elif branch is not None and move == "back":
            branch.rollback(len(branch) // 2)
        elif branch is not None:
            open_.remove(branch)
            branch.close(stale=which > 3)
        if number % every == 0:
            for each in feed.drain():
                mirror.apply(event(plain(each)))
            assert mirror.blocks() == ledger.blocks()
        ledger.check(holdings(open_))
    for each in feed.drain():
        mirror.apply(each)
    assert mirror.blocks() == ledger.blocks()
