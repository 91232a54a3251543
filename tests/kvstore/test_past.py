"""What forks share: it is held once, given back with the last who stands on it, and costs the same at any length."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from sostenuto.kvstore import (
    BlockHash,
    Branch,
    BrokenBooks,
    Growth,
    Ledger,
    NotHeld,
    OutOfPages,
    PageId,
    Past,
    Prefix,
    Snapshot,
    holdings,
)

from .room import PAGE, ROOT, known, leave, victims, write

ROOM = 16
FEW, MANY = 1_024, 65_536
few_tokens = st.lists(st.integers(0, 2), min_size=1, max_size=10)


def test_a_fork_holds_nothing_but_the_unfinished_page_and_the_end_of_what_it_shares() -> None:
    ledger = Ledger(8, PAGE)
    parent = write(ledger, range(10))
    child = parent.fork()
    assert [ledger.refs(page) for page in parent.pages] == [1, 1, 2]
    parent.close()
    assert [ledger.refs(page) for page in child.pages] == [1, 1, 1]
    assert ledger.available == 5
    child.close()
    assert ledger.available == 8
    ledger.check(holdings([parent, child]))


def test_a_rollback_gives_back_only_what_no_fork_stands_on() -> None:
    ledger = Ledger(8, PAGE)
    parent = write(ledger, range(16))
    child = parent.fork()
    child.rollback(8)
    assert (parent.rollback(2), parent.pages) == (14, child.pages[:1])
    assert (ledger.available, known(ledger, range(16))) == (6, 16)
    assert [ledger.refs(page) for page in child.pages] == [2, 1]  # the parent stands in the middle of the first
    ledger.check(holdings([parent, child]))


def test_a_branch_that_goes_back_into_a_shared_page_writes_on_a_copy_of_it() -> None:
    ledger = Ledger(8, PAGE)
    parent = write(ledger, range(8))
    child = parent.fork()
    child.rollback(6)
    copy = child.reserve(1).copy
    assert copy is not None
    assert (copy.source, copy.target, copy.tokens) == (parent.pages[1], child.pages[1], 2)
    child.append([9])
    assert (parent.tokens, child.tokens) == (list(range(8)), [*range(6), 9])
    ledger.check(holdings([parent, child]))


@pytest.mark.parametrize("end", [lambda branch: branch.rollback(6), Branch.close])
def test_room_that_was_reserved_and_not_used_is_the_next_ones_to_write_on(end: Callable[[Branch], object]) -> None:
    ledger = Ledger(8, PAGE)
    parent = write(ledger, range(6))
    child = parent.fork()
    parent.reserve(1)
    end(parent)
    assert child.reserve(1) == Growth()
    child.append([9])
    ledger.check(holdings([parent, child]))


def test_a_fork_that_is_given_up_spares_what_its_parent_stands_on() -> None:
    ledger = Ledger(5, PAGE, rank=lambda page: (0 if page.stale else 1, page.used, -page.depth))
    contexts = {"old": [3] * 4, "parent": [1] * 8, "fork": [1] * 8 + [2] * 8}
    leave(ledger, contexts["old"])
    parent = write(ledger, contexts["parent"])
    child = parent.fork()
    child.reserve(8)
    child.append([2] * 8)
    child.close(stale=True)
    parent.close()
    assert victims(ledger, contexts) == ["fork", "fork", "old", "parent", "fork", "parent", "fork"]


def test_a_snapshot_says_where_it_lies_also_when_it_is_closed_and_closing_it_twice_is_harmless() -> None:
    ledger = Ledger(8, PAGE)
    branch = write(ledger, range(6))
    with branch.freeze() as snapshot:
        prefix: Prefix = snapshot
        pages = branch.pages
        branch.rollback(0)
        branch.close()
        assert ledger.available == 6
    assert isinstance(snapshot, Snapshot)
    snapshot.close()
    assert (ledger.available, len(snapshot)) == (8, 6)
    assert (prefix.tokens, prefix.pages) == (tuple(range(6)), tuple(pages))
    ledger.check(holdings([branch, snapshot]))


def test_a_closed_branch_can_be_neither_written_on_nor_shared() -> None:
    branch = write(Ledger(8, PAGE), range(6))
    branch.close()
    assert (branch.pages, len(branch)) == ([], 6)
    uses: list[Callable[[], object]] = [
        branch.fork,
        branch.freeze,
        lambda: branch.reserve(1),
        lambda: branch.rollback(1),
    ]
    for use in uses:
        with pytest.raises(NotHeld, match="closed"):
            use()


def test_before_a_collision_a_branch_can_go_on_and_be_found() -> None:
    ledger = Ledger(8, PAGE, name=lambda parent, tokens: BlockHash(bytes([tokens[0]]) * 16))
    leave(ledger, [1, 1, 1, 1, 2, 2, 2, 2])
    branch = write(ledger, [1, 1, 1, 1, 2, 3, 3, 3, 4, 4, 4, 4])
    assert known(ledger, branch.tokens) == 5  # another content has the second block's name
    assert ledger.content(branch.pages[2]) is None
    fork = branch.fork()
    for each in (branch, fork):
        each.rollback(4)
        each.reserve(4)
        each.append([5, 5, 5, 5])
    assert known(ledger, fork.tokens) == 8
    ledger.check(holdings([branch, fork]))


def test_who_counts_holdings_finds_a_context_that_was_forgotten() -> None:
    ledger = Ledger(8, PAGE)
    parent = write(ledger, range(8))
    child = parent.fork()
    with pytest.raises(BrokenBooks, match="held by 2>: there are 1"):
        ledger.check(holdings([parent]))
    past, own = child.holds()
    assert isinstance(past, Past)
    assert (past.holders, past.blocks, own) == (2, 2, ())
    past.holders += 1
    with pytest.raises(BrokenBooks, match="held by 3"):
        ledger.check(holdings([parent, child]))


def test_a_past_of_any_length_can_be_forgotten() -> None:
    past: Past | None = None
    for page in range(300_000):
        past = Past(past, PageId(page), (), name=None)
    del past


def fork(branch: Branch) -> None:
    branch.fork().close()


def fork_and_write(branch: Branch) -> None:
    child = branch.fork()
    child.reserve(1)
    child.append([9])
    child.close()


def freeze(branch: Branch) -> None:
    branch.freeze().close()


def go_back(branch: Branch) -> None:
    branch.rollback(len(branch) - 64)


def go_back_in_a_fork(branch: Branch) -> None:
    child = branch.fork()
    child.rollback(len(child) - 64)
    child.close()


@pytest.mark.parametrize("act", [fork, fork_and_write, freeze, go_back, go_back_in_a_fork])
def test_steps_and_bytes_of_a_fork_a_snapshot_and_a_rollback_do_not_grow_with_the_past(
    act: Callable[[Branch], None],
) -> None:
    few, many = (write(Ledger(size // 16 + 8, 16), [at % 1000 for at in range(size + 5)]) for size in (FEW, MANY))
    assert steps(act, few) == steps(act, many)
    few, many = (write(Ledger(size // 16 + 8, 16), [at % 1000 for at in range(size + 5)]) for size in (FEW, MANY))
    assert abs(peak(act, few) - peak(act, many)) < 1_000  # a list of all pages would be 32,768 bytes


def steps(act: Callable[[Branch], None], branch: Branch) -> int:
    """Lines of Python that are run."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    gc.disable()  # a collection is not one of them
    sys.settrace(trace)
    try:
        act(branch)
    finally:
        sys.settrace(before)
        gc.enable()
    return count


def peak(act: Callable[[Branch], None], branch: Branch) -> int:
    """Bytes that are allocated at most, beyond what there was."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        act(branch)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


class Pool(RuleBasedStateMachine):
    """Random forks, rollbacks and snapshots over a memory that is written and copied as branches say.

    The plain model: each context has a list of its tokens and a list of its pages, copied whole at each fork.
    """

    branches = Bundle("branches")
    snapshots = Bundle("snapshots")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(ROOM, PAGE)
        self.memory = [[-1] * PAGE for _ in range(ROOM)]
        self.tokens: dict[Branch | Snapshot, list[int]] = {}
        self.pages: dict[Branch | Snapshot, list[PageId]] = {}

    @rule(target=branches, prompt=st.lists(st.integers(0, 2), max_size=14))
    def arrive(self, prompt: list[int]) -> Branch:
        branch = Branch.resume(self.ledger, ROOT, prompt)
        self.tokens[branch], self.pages[branch] = prompt[: len(branch)], branch.pages
        return branch

    @rule(branch=branches, count=st.integers(0, 9))
    def reserve(self, branch: Branch, count: int) -> None:
        before = repr(self.ledger)
        try:
            growth = branch.reserve(count)
        except OutOfPages:
            assert repr(self.ledger) == before
            return
        if growth.copy is not None:
            at = len(branch) // PAGE
            assert self.pages[branch][at] == growth.copy.source
            assert growth.copy.tokens == len(branch) % PAGE
            self.pages[branch][at] = growth.copy.target
            kept = self.memory[growth.copy.source][: growth.copy.tokens]
            self.memory[growth.copy.target][: growth.copy.tokens] = kept
        self.pages[branch] += growth.pages

    @rule(branch=branches, more=few_tokens)
    def grow(self, branch: Branch, more: list[int]) -> None:
        self.reserve(branch, len(more))
        at = len(branch)
        try:
            branch.append(more)
        except ValueError:
            return  # there was no room
        for place, token in enumerate(more, at):
            self.memory[self.pages[branch][place // PAGE]][place % PAGE] = token
        self.tokens[branch] += more

    @rule(target=branches, branch=branches)
    def fork(self, branch: Branch) -> Branch:
        child = branch.fork()
        self._copied(branch, child)
        return child

    @rule(target=snapshots, branch=branches)
    def freeze(self, branch: Branch) -> Snapshot:
        snapshot = branch.freeze()
        self._copied(branch, snapshot)
        return snapshot

    @rule(branch=branches, share=st.floats(0, 1))
    def roll_back(self, branch: Branch, share: float) -> None:
        length = int(len(branch) * share)
        assert branch.rollback(length) == len(self.tokens[branch]) - length
        del self.tokens[branch][length:]
        del self.pages[branch][-(-length // PAGE) :]

    @rule(snapshot=snapshots, key=st.sampled_from("ab"))
    def hold(self, snapshot: Snapshot, key: str) -> None:
        lease = self.ledger.hold(key, snapshot, until=1.0, budget=ROOM // 2)
        assert lease.pages == tuple(self.pages[snapshot][: len(lease.pages)])
        assert lease.tokens == tuple(self.tokens[snapshot][: len(lease.tokens)])

    @rule(key=st.sampled_from("ab"), stale=st.booleans())
    def release(self, key: str, stale: bool) -> None:
        self.ledger.release(key, stale=stale)

    @rule(context=consumes(branches) | consumes(snapshots), stale=st.booleans())
    def close(self, context: Branch | Snapshot, stale: bool) -> None:
        context.close(stale=stale)
        context.close()
        del self.tokens[context], self.pages[context]

    @invariant()
    def every_context_is_what_the_model_says(self) -> None:
        for context, tokens in self.tokens.items():
            assert (list(context.tokens), list(context.pages)) == (tokens, self.pages[context])
            assert [self.memory[context.pages[at // PAGE]][at % PAGE] for at in range(len(tokens))] == tokens

    @invariant()
    def exactly_what_somebody_stands_on_is_taken(self) -> None:
        taken = {page for pages in self.pages.values() for page in pages}
        taken |= {page for lease in self.ledger.leases.values() for page in lease.pages}
        assert {page for page in map(PageId, range(ROOM)) if self.ledger.refs(page)} == taken
        assert self.ledger.available == ROOM - len(taken)
        self.ledger.check(holdings(self.tokens))

    def teardown(self) -> None:
        for context in self.tokens:
            context.close()
        self.ledger.expire(1.0)
        self.ledger.check()
        assert self.ledger.available == ROOM

    def _copied(self, branch: Branch, other: Branch | Snapshot) -> None:
        self.tokens[other] = self.tokens[branch].copy()
        self.pages[other] = self.pages[branch][: -(-len(branch) // PAGE)]


Pool.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestPool = Pool.TestCase
