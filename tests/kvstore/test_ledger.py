"""The books: what is found, what is kept, what goes first, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from sostenuto.kvstore import (
    BlockHash,
    Branch,
    Cached,
    KVError,
    Lease,
    Ledger,
    Match,
    NotHeld,
    OutOfPages,
    PageId,
    Rank,
    Snapshot,
    chain,
    holdings,
    name,
    oldest_first,
    root,
)

ROOT = root(model="m")
PAGE = 4


def write(ledger: Ledger, tokens: list[int], *, at: BlockHash = ROOT) -> Branch:
    branch = Branch.resume(ledger, at, tokens)
    rest = tokens[len(branch) :]
    branch.reserve(len(rest))
    branch.append(rest)
    return branch


def known(ledger: Ledger, tokens: list[int], *, at: BlockHash = ROOT) -> int:
    match = ledger.match(at, tokens)
    assert isinstance(match, Match)
    return match.tokens(ledger.page)


def test_equal_tokens_after_different_prefixes_have_different_names() -> None:
    one = chain([1, 2, 3, 4, 9, 9, 9, 9], PAGE, ROOT)
    two = chain([5, 6, 7, 8, 9, 9, 9, 9], PAGE, ROOT)
    assert one[1] != two[1]
    assert one[0] == name(ROOT, [1, 2, 3, 4])
    assert len(chain([1, 2, 3], PAGE, ROOT)) == 0


def test_every_part_of_a_root_makes_another_root_and_parts_cannot_pass_for_each_other() -> None:
    roots = {
        root(model="m"),
        root(model="n"),
        root(model="m", tenant="a"),
        root(model="m", adapter="a"),
        root(model="m", weights="a"),
        root(model="m", exact=False),
        root(model="m", tenant="a", adapter=""),
        root(model="m:7:adapter", tenant="x"),
    }
    assert len(roots) == 7


def test_a_tenant_never_hits_what_another_computed() -> None:
    ledger = Ledger(8, PAGE)
    write(ledger, list(range(10)), at=root(model="m", tenant="a")).close()
    assert known(ledger, list(range(10)), at=root(model="m", tenant="a")) == 10
    assert known(ledger, list(range(10)), at=root(model="m", tenant="b")) == 0


def test_a_match_goes_on_inside_a_block() -> None:
    ledger = Ledger(8, PAGE)
    write(ledger, [1, 2, 3, 4, 5, 6, 7, 8, 9]).close()
    assert known(ledger, [1, 2, 3, 4, 5, 6, 0, 0]) == 6
    assert known(ledger, [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]) == 9
    assert known(ledger, [2, 2, 3, 4]) == 0


def test_the_tail_that_shares_most_is_the_one_offered() -> None:
    ledger = Ledger(8, PAGE)
    write(ledger, [1, 2, 9]).close()
    write(ledger, [1, 2, 3, 9]).close()
    assert ledger.match(ROOT, [1, 2, 3, 4]).tail_tokens == 3


def test_a_failed_allocation_changes_neither_counts_nor_order() -> None:
    ledger = Ledger(3, PAGE)
    write(ledger, [1, 2, 3, 4]).close()
    taken = ledger.alloc(1)
    before = repr(ledger)
    with pytest.raises(OutOfPages) as caught:
        ledger.alloc(3)
    assert (caught.value.asked, caught.value.available) == (3, 2)
    assert isinstance(caught.value, KVError)
    assert repr(ledger) == before
    assert known(ledger, [1, 2, 3, 4]) == 4
    ledger.drop(taken)
    ledger.check()


def test_free_pages_go_before_cached_ones_and_ends_before_beginnings_and_older_before_newer() -> None:
    ledger = Ledger(5, PAGE)
    old, new = [1] * 8, [2] * 8
    write(ledger, old).close()
    write(ledger, new).close()
    seen = []
    for _ in range(5):
        ledger.alloc(1)
        seen.append((known(ledger, old), known(ledger, new)))
    assert seen == [(8, 8), (4, 8), (0, 8), (0, 4), (0, 0)]


def test_a_hit_page_is_not_evicted_for_the_request_that_hit_it() -> None:
    ledger = Ledger(3, PAGE)
    write(ledger, [1, 2, 3, 4]).close()
    write(ledger, [9, 9, 9, 9]).close()
    branch = write(ledger, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert branch.tokens == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert known(ledger, [9, 9, 9, 9]) == 0
    branch.close()
    ledger.check()


def test_a_block_loses_its_name_before_it_is_written_again() -> None:
    ledger = Ledger(1, PAGE)
    write(ledger, [1, 2, 3, 4]).close()
    ledger.alloc(1)
    assert known(ledger, [1, 2, 3, 4]) == 0


def test_losing_a_middle_block_ends_hits_there_and_what_lies_behind_is_reclaimable() -> None:
    ledger = Ledger(3, PAGE, rank=lambda page: (abs(page.depth - 1),))
    write(ledger, list(range(12))).close()
    ledger.alloc(1)
    assert known(ledger, list(range(12))) == 4
    ledger.alloc(2)
    assert ledger.available == 0


def test_equal_content_may_lie_in_two_pages_and_losing_one_leaves_the_other_findable() -> None:
    ledger = Ledger(4, PAGE)
    one, two = Branch(ledger, ROOT), Branch(ledger, ROOT)
    for branch in (one, two):
        branch.reserve(4)
        branch.append([1, 2, 3, 4])
    assert one.pages != two.pages
    one.close()
    ledger.alloc(3)
    assert known(ledger, [1, 2, 3, 4]) == 4
    two.close()
    assert known(ledger, [1, 2, 3, 4]) == 4


def test_a_collision_serves_nobody_the_wrong_tokens() -> None:
    ledger = Ledger(8, PAGE, name=lambda parent, tokens: BlockHash(b"same"))
    first = write(ledger, [1, 2, 3, 4])
    second = Branch(ledger, ROOT)
    second.reserve(8)
    second.append([5, 6, 7, 8, 9, 9, 9, 9])
    assert known(ledger, [1, 2, 3, 4]) == 4
    assert known(ledger, [5, 6, 7, 8]) == 0
    assert known(ledger, [1, 2, 3, 4, 9, 9, 9, 9]) == 4  # what follows the refused block is not found either
    first.close()
    second.close()
    ledger.check()


def test_sharers_are_counted_and_giving_back_twice_is_an_error_that_changes_nothing() -> None:
    ledger = Ledger(4, PAGE)
    one = write(ledger, [1, 2, 3, 4])
    two = write(ledger, [1, 2, 3, 4])
    page = one.pages[0]
    assert ledger.refs(page) == 2
    two.close()
    two.close()
    assert ledger.refs(page) == 1
    one.close()
    with pytest.raises(NotHeld):
        ledger.drop([page])
    with pytest.raises(NotHeld):
        ledger.take([PageId(3 - page)])  # free: there is nothing in it to share


def test_clearing_forgets_what_nobody_holds_and_nothing_else() -> None:
    ledger = Ledger(4, PAGE)
    branch = write(ledger, list(range(8)))
    assert ledger.clear() == 0
    assert known(ledger, list(range(8))) == 8
    branch.close()
    assert ledger.clear() == 2
    assert known(ledger, list(range(8))) == 0
    assert ledger.free == 4
    ledger.check()


def snapshot(ledger: Ledger, tokens: list[int]) -> tuple[Snapshot, Branch]:
    branch = write(ledger, tokens)
    frozen = branch.freeze()
    frozen.close()  # the branch itself keeps the pages during the test
    return frozen, branch


def test_a_hold_survives_pressure_until_its_end_and_deletes_nothing_when_it_ends() -> None:
    ledger = Ledger(4, PAGE)
    frozen, branch = snapshot(ledger, list(range(8)))
    lease: Lease = ledger.hold("a", frozen, until=5.0, budget=4)
    branch.close()
    assert (len(lease.pages), lease.asked, ledger.held) == (2, 2, 2)
    with pytest.raises(OutOfPages):
        ledger.alloc(3)
    assert ledger.expire(4.9) == ()
    assert ledger.expire(5.0) == (lease,)
    assert (ledger.held, known(ledger, list(range(8)))) == (0, 8)
    ledger.check()


def test_a_hold_over_its_budget_keeps_the_head_and_says_so() -> None:
    ledger = Ledger(8, PAGE)
    frozen, branch = snapshot(ledger, list(range(16)))
    lease = ledger.hold("a", frozen, until=5.0, budget=3)
    branch.close()
    assert (len(lease.pages), lease.asked, lease.tokens) == (3, 4, tuple(range(12)))
    assert ledger.held == 3
    ledger.check()


def test_holding_again_under_one_key_restarts_its_clock() -> None:
    ledger = Ledger(8, PAGE)
    frozen, branch = snapshot(ledger, list(range(8)))
    ledger.hold("a", frozen, until=5.0, budget=8)
    ledger.hold("a", frozen, until=9.0, budget=8)
    assert ledger.expire(6.0) == ()
    assert ledger.held == 2
    assert ledger.release("a") is not None
    assert ledger.release("a") is None
    branch.close()
    ledger.check()


def test_a_shared_page_stays_held_until_the_last_lease_ends() -> None:
    ledger = Ledger(8, PAGE)
    frozen, branch = snapshot(ledger, list(range(8)))
    ledger.hold("a", frozen, until=5.0, budget=8)
    ledger.hold("b", frozen, until=5.0, budget=8)
    branch.close()
    ledger.release("a", stale=True)
    assert ledger.held == 2
    ledger.release("b")
    assert ledger.held == 0
    ledger.check()


def test_the_given_rank_decides_who_goes() -> None:
    def deepest_last(page: Cached) -> tuple[float, ...]:
        return (page.depth,)

    rank: Rank = deepest_last
    ledger = Ledger(2, PAGE, rank=rank)
    write(ledger, list(range(8))).close()
    ledger.alloc(1)
    assert known(ledger, list(range(8))) == 0
    assert oldest_first(Cached(ledger.alloc(1)[0], 3, 7, False)) == (7, -3)


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=14), min_size=1, max_size=12))
@settings(deadline=None)
def test_a_match_is_never_longer_than_what_was_computed(prompts: list[list[int]]) -> None:
    ledger = Ledger(64, PAGE)
    for index, prompt in enumerate(prompts):
        best = max((_common(prompt, old) for old in prompts[:index]), default=0)
        got = known(ledger, prompt)
        assert got <= best
        assert got >= best - best % PAGE
        write(ledger, prompt).close()
        ledger.check()


def _common(one: list[int], two: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


class Books(RuleBasedStateMachine):
    """Random lives of branches, snapshots and leases; after each step every invariant holds."""

    branches = Bundle("branches")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(12, PAGE)
        self.open: list[Branch] = []
        self.shadow: dict[int, list[int]] = {}
        self.now = 0.0

    @rule(target=branches, tokens=st.lists(st.integers(0, 2), max_size=12))
    def arrive(self, tokens: list[int]) -> Branch:
        branch = Branch.resume(self.ledger, ROOT, tokens)
        assert branch.tokens == tokens[: len(branch)]
        return self._opened(branch)

    @rule(branch=branches, tokens=st.lists(st.integers(0, 2), min_size=1, max_size=6))
    def grow(self, branch: Branch, tokens: list[int]) -> None:
        try:
            growth = branch.reserve(len(tokens))
        except OutOfPages:
            return
        if growth.copy is not None:
            assert growth.copy.tokens == len(branch) % PAGE
        branch.append(tokens)
        self.shadow[id(branch)] += tokens

    @rule(target=branches, branch=branches)
    def fork(self, branch: Branch) -> Branch:
        return self._opened(branch.fork())

    @rule(branch=branches, share=st.floats(0, 1))
    def roll_back(self, branch: Branch, share: float) -> None:
        length = int(len(branch) * share)
        assert branch.rollback(length) == len(self.shadow[id(branch)]) - length
        del self.shadow[id(branch)][length:]

    @rule(branch=branches, key=st.sampled_from("ab"), seconds=st.integers(1, 5))
    def hold(self, branch: Branch, key: str, seconds: int) -> None:
        with branch.freeze() as frozen:
            self.ledger.hold(key, frozen, until=self.now + seconds, budget=6)
        assert self.ledger.held <= 6

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.ledger.expire(self.now)

    @rule(branch=consumes(branches), stale=st.booleans())
    def close(self, branch: Branch, stale: bool) -> None:
        branch.close(stale=stale)
        self.open.remove(branch)

    @invariant()
    def the_books_are_right(self) -> None:
        self.ledger.check(holdings(self.open))
        for branch in self.open:
            assert branch.tokens == self.shadow[id(branch)]

    def teardown(self) -> None:
        for branch in self.open:
            branch.close()
        self.ledger.expire(float("inf"))
        self.ledger.check()
        self.ledger.clear()
        assert self.ledger.free == 12

    def _opened(self, branch: Branch) -> Branch:
        self.open.append(branch)
        self.shadow[id(branch)] = list(branch.tokens)
        return branch


Books.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestBooks = Books.TestCase
