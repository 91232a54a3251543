"""Contexts of grouped layers: what they read is what they wrote, what windows leave behind is room for others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from sostenuto.kvstore import (
    NOWHERE,
    Branch,
    Copy,
    Group,
    Grouped,
    GroupMatch,
    Groups,
    GroupSnapshot,
    Growth,
    Ledger,
    NotAnAncestor,
    OutOfPages,
    Range,
    Snapshot,
    find,
    holdings,
    resume,
)

from .room import PAGE, ROOT

STRIDE = 8


def pool(room: int, *windows: int | None) -> Ledger:
    ledger = Ledger(room, PAGE, rank=lambda page: (0 if page.stale else 1, page.used, -page.depth))
    ledger.groups = Groups(tuple(Group((number,), window) for number, window in enumerate(windows)), STRIDE)
    return ledger


def held(*contexts: Grouped | GroupSnapshot) -> list[Branch | Snapshot]:
    return [part for context in contexts for part in context.parts]


def say(context: Grouped, tokens: Sequence[int]) -> None:
    for at in range(0, len(tokens), STRIDE):
        more = tokens[at : at + STRIDE]
        context.reserve(len(more))
        context.append(more)


def write(ledger: Ledger, tokens: Sequence[int]) -> Grouped:
    context = Grouped.resume(ledger, ROOT, tokens)
    say(context, tokens[len(context) :])
    return context


def known(ledger: Ledger, tokens: Sequence[int]) -> int:
    return find(ledger, ROOT, tokens).tokens(PAGE)


def test_a_context_several_windows_long_keeps_few_pages_of_the_layers_that_have_one() -> None:
    ledger = pool(64, None, 6, 6)
    context = write(ledger, range(80))
    assert ledger.room - ledger.available == 20 + 2 + 2
    assert [len(part.pages) for part in context.parts] == [20, 2, 2]
    assert context.table[-6:] == (
        *(part.pages[-2] for part in context.parts),
        *(part.pages[-1] for part in context.parts),
    )
    assert context.table[1:3] == (NOWHERE, NOWHERE)
    ledger.check(holdings(held(context)))
    context.close()
    assert ledger.available == 64


def test_what_a_window_left_behind_is_found_until_somebody_wants_the_room_and_goes_first() -> None:
    ledger = pool(24, None, 6)
    context = write(ledger, range(40))  # 10 pages, and 2; 8 are cached
    assert (ledger.cached, known(ledger, range(20))) == (8, 20)
    other = write(ledger, range(100, 132))  # 8 pages, and 2
    other.close()
    assert known(ledger, range(100, 132)) == 32
    context.close()
    assert known(ledger, range(40)) == 40
    assert known(ledger, range(20)) < 20
    ledger.check()


def test_losing_the_first_page_of_a_layer_that_sees_all_is_a_total_miss_and_of_another_is_none() -> None:
    ledger = pool(40, None, 6)
    context = write(ledger, range(24))
    pages = context.pages
    context.close()
    assert known(ledger, [*range(24), 99]) == 24
    full, windowed = ledger.groups.split(pages, 24, PAGE)
    for page in (*range(40),):
        if page not in windowed and page not in full:
            ledger.index.forget(page)  # whatever a window has passed
    assert known(ledger, [*range(24), 99]) == 24
    ledger.index.forget(full[0])
    assert known(ledger, [*range(24), 99]) == 0


def test_a_hit_ends_inside_a_block_where_all_groups_have_as_much_of_it() -> None:
    ledger = pool(40, None, 6)
    write(ledger, range(22)).close()
    match = find(ledger, ROOT, [*range(21), 77, 78])
    assert isinstance(match, GroupMatch)
    assert (match.tokens(PAGE), len(match.tails)) == (21, 2)
    assert not set(match.tails) & set(match.pages)
    again = resume(ledger, ROOT, [*range(21), 77])
    growth = again.reserve(1)
    assert growth.copy is not None
    assert growth.copy.tokens == 1
    assert len(growth.others) == 1  # one a group
    again.close()


def test_a_rollback_stands_where_all_groups_can_go_on_and_the_rest_is_computed_again() -> None:
    ledger = pool(15, None, 6)
    context = write(ledger, range(40))
    assert (context.rollback(30), len(context)) == (10, 30)  # nobody wanted the room
    say(context, range(30, 40))
    ledger.drop(ledger.alloc(ledger.free + 3))  # somebody did
    assert (context.rollback(14), len(context)) == (40, 0)
    say(context, range(40))
    with pytest.raises(NotAnAncestor):
        context.rollback(41)
    ledger.check(holdings(held(context)))


def test_a_snapshot_keeps_what_the_next_token_after_it_looks_at_whatever_becomes_of_the_branch() -> None:
    ledger = pool(32, None, 6)
    context = write(ledger, range(30))
    snapshot = context.freeze()
    say(context, range(100, 140))
    context.close()
    ledger.drop(ledger.alloc(ledger.available))
    assert known(ledger, range(30)) == len(snapshot) == 30
    lease = ledger.hold("a", snapshot, until=9.0, budget=20)
    assert (lease.pages, lease.tokens) == (snapshot.pages, tuple(range(30)))
    snapshot.close()
    assert known(ledger, range(30)) == 30
    ledger.check()


def test_a_lease_with_windows_is_kept_whole_or_not_at_all() -> None:
    ledger = pool(32, None, 6)
    with write(ledger, range(30)).freeze() as snapshot:
        lease = ledger.hold("a", snapshot, until=9.0, budget=len(snapshot.pages) - 1)
        assert (lease.pages, lease.tokens, lease.asked) == ((), (), 10)
        assert ledger.hold("a", snapshot, until=9.0, budget=len(snapshot.pages)).tokens == tuple(range(30))


def test_a_priority_for_some_tokens_is_that_of_their_blocks_in_every_group() -> None:
    ledger = pool(32, None, 6)
    context = write(ledger, range(24))
    assert ledger.retain("a", context.pages, [Range(20, None, 80)]) == 2
    full, windowed = (part.pages for part in context.parts)
    assert [ledger.priority(page) for page in (*full, *windowed)] == [35, 35, 35, 35, 35, 80, 35, 80]


def test_a_context_that_finds_no_room_in_one_group_takes_none_in_the_others() -> None:
    ledger = pool(5, None, 6)
    context = write(ledger, range(8))
    before = repr(ledger)
    with pytest.raises(OutOfPages):
        context.reserve(1)
    assert repr(ledger) == before
    assert context.owes(8) == 0
    assert context.owes(24) == 4 + 2


def test_contexts_leave_the_cache_one_after_the_other_and_what_was_passed_before_all() -> None:
    ledger = pool(14, None, 6)
    contexts = {"a": [1] * 16, "b": [2] * 16}
    for tokens in contexts.values():
        write(ledger, tokens).close()
    order = victims_of(ledger, contexts)
    assert order[:2] == ["", ""]  # what windows had passed
    assert order.index("a") < order.index("b")


def victims_of(ledger: Ledger, contexts: dict[str, list[int]]) -> list[str]:
    order = []
    while ledger.available:
        before = {name: known(ledger, tokens) for name, tokens in contexts.items()}
        ledger.alloc(1)
        order.append("".join(name for name, tokens in contexts.items() if known(ledger, tokens) < before[name]))
    return order


def test_one_window_in_all_layers_keeps_the_names_of_a_model_without() -> None:
    ledger, plain = pool(32, 6), Ledger(32, PAGE)
    write(ledger, range(20)).close()
    other = Branch(plain, ROOT)
    other.reserve(20)
    other.append(range(20))
    assert ledger.blocks().keys() == plain.blocks().keys()
    assert other.table == tuple(other.pages)


class Lives(RuleBasedStateMachine):
    """Random lives of contexts over a pool in which every slot says what was written there, and by which group."""

    contexts = Bundle("contexts")

    @initialize(
        windows=st.lists(st.one_of(st.none(), st.sampled_from([2, 3, 6, 9])), min_size=1, max_size=3).filter(
            lambda windows: windows != [None]
        )
    )
    def begin(self, windows: list[int | None]) -> None:
        self.ledger = pool(30, *windows)
        self.cells: dict[tuple[int, int], tuple[int, tuple[int, ...]]] = {}
        self.open: list[Grouped] = []
        self.shadow: dict[int, list[int]] = {}
        self.frozen: list[tuple[GroupSnapshot, tuple[int, ...]]] = []
        self.now = 0.0

    @rule(target=contexts, tokens=st.lists(st.integers(0, 1), max_size=20))
    def arrive(self, tokens: list[int]) -> Grouped:
        context = resume(self.ledger, ROOT, tokens)
        assert isinstance(context, Grouped)
        assert context.tokens == tokens[: len(context)]
        return self.opened(context)

    @rule(context=contexts, tokens=st.lists(st.integers(0, 1), min_size=1, max_size=STRIDE))
    def grow(self, context: Grouped, tokens: list[int]) -> None:
        owed = context.owes(len(context) + len(tokens))
        before = self.ledger.available
        try:
            growth: Growth = context.reserve(len(tokens))
        except OutOfPages:
            assert self.ledger.available == before
            return
        assert len(growth.pages) <= owed
        for copy in self.copies(growth):
            assert copy.tokens == len(context) % PAGE
            for slot in range(copy.tokens):
                self.cells[copy.target, slot] = self.cells[copy.source, slot]
        told = self.shadow[id(context)]
        for token in tokens:
            at = len(told)
            told.append(token)
            for group, page in enumerate(self.block(context, at // PAGE)):
                self.cells[page, at % PAGE] = (group, tuple(told))
        context.append(tokens)

    @rule(target=contexts, context=contexts)
    def fork(self, context: Grouped) -> Grouped:
        return self.opened(context.fork())

    @rule(context=contexts, share=st.floats(0, 1))
    def roll_back(self, context: Grouped, share: float) -> None:
        length = int(len(context) * share)
        lost = context.rollback(length)
        assert len(context) <= length
        assert lost == len(self.shadow[id(context)]) - len(context)
        del self.shadow[id(context)][len(context) :]

    @rule(context=contexts)
    def freeze(self, context: Grouped) -> None:
        self.frozen.append((context.freeze(), tuple(self.shadow[id(context)])))

    @rule(which=st.integers(0, 9))
    def thaw(self, which: int) -> None:
        if self.frozen:
            snapshot, tokens = self.frozen.pop(which % len(self.frozen))
            match = find(self.ledger, ROOT, tokens)
            assert match.tokens(PAGE) == len(tokens)  # a snapshot is never lost
            snapshot.close()

    @rule(context=contexts, key=st.sampled_from("ab"), seconds=st.integers(1, 5))
    def hold(self, context: Grouped, key: str, seconds: int) -> None:
        with context.freeze() as frozen:
            lease = self.ledger.hold(key, frozen, until=self.now + seconds, budget=12)
        assert lease.tokens in ((), tuple(self.shadow[id(context)]))
        assert self.ledger.held <= 12

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.ledger.expire(self.now)

    @rule(share=st.floats(0, 1))
    def press(self, share: float) -> None:
        self.ledger.drop(self.ledger.alloc(int(self.ledger.available * share)))

    @rule(context=consumes(contexts), stale=st.booleans())
    def close(self, context: Grouped, stale: bool) -> None:
        context.close(stale=stale)
        self.open = [other for other in self.open if other is not context]

    @invariant()
    def the_books_are_right_and_every_context_reads_what_it_wrote(self) -> None:
        self.ledger.check(holdings(held(*self.open, *(snapshot for snapshot, _ in self.frozen))))
        for context in self.open:
            tokens = self.shadow[id(context)]
            assert context.tokens == tokens
            for number, group in enumerate(self.ledger.groups.each):
                first = 0 if group.window is None else max(0, len(tokens) - group.window + 1)
                for at in range(first, len(tokens)):
                    page = self.block(context, at // PAGE)[number]
                    assert self.cells[page, at % PAGE] == (number, tuple(tokens[: at + 1]))

    def teardown(self) -> None:
        for snapshot, _ in self.frozen:
            snapshot.close()
        for context in self.open:
            context.close()
        self.ledger.expire(float("inf"))
        self.ledger.check()
        self.ledger.clear()
        assert self.ledger.free == 30

    def block(self, context: Grouped, block: int) -> Sequence[int]:
        count = len(self.ledger.groups)
        return context.table[block * count : (block + 1) * count]

    def copies(self, growth: Growth) -> Iterator[Copy]:
        if growth.copy is not None:
            yield growth.copy
        yield from growth.others

    def opened(self, context: Grouped) -> Grouped:
        self.open.append(context)
        self.shadow[id(context)] = context.tokens
        return context


Lives.TestCase.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
TestLives = Lives.TestCase
