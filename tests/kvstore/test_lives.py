"""Random lives of branches, pins, leases, priorities and events in one ledger; after each step all books are right."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from sostenuto.kvstore import Branch, Cached, Feed, Ledger, Mirror, OutOfPages, Pins, Range, Terms, Wish, holdings, root

from .room import PAGE

ROOM = 14
ROOTS = (root(model="m", tenant="t"), root(model="m", tenant="u"))
tokens = st.lists(st.integers(0, 1), max_size=14)
priorities = st.lists(
    st.builds(
        lambda start, size, priority, until: Range(start, start + size, priority, float(until)),
        st.integers(0, 12),
        st.integers(1, 12),
        st.integers(0, 100),
        st.integers(1, 40),
    ),
    max_size=2,
).map(tuple)


def rank(page: Cached) -> tuple[float, ...]:
    return (page.priority, not page.stale, page.used, -page.depth)


class Lives(RuleBasedStateMachine):
    branches = Bundle("branches")

    def __init__(self) -> None:
        super().__init__()
        self.feed = Feed()
        self.mirror = Mirror()
        self.ledger = Ledger(ROOM, PAGE, rank=rank)
        self.ledger.listen(self.feed)
        self.pins = Pins(self.ledger, total=6, each=4)
        self.open: list[Branch] = []
        self.tenant: dict[int, int] = {}
        self.now = 0.0

    @rule(target=branches, prompt=tokens, tenant=st.integers(0, 1))
    def arrive(self, prompt: list[int], tenant: int) -> Branch:
        branch = Branch.resume(self.ledger, ROOTS[tenant], prompt)
        assert branch.tokens == prompt[: len(branch)]
        for page in branch.pages:
            content = self.ledger.content(page)
            assert content is not None
            assert content.depth > 0 or content.parent == ROOTS[tenant]  # never another tenant's
        self.open.append(branch)
        return branch

    @rule(branch=branches, more=tokens.filter(bool))
    def grow(self, branch: Branch, more: list[int]) -> None:
        before = repr(self.ledger), len(self.feed)
        try:
            branch.reserve(len(more))
        except OutOfPages:
            assert (repr(self.ledger), len(self.feed)) == before
        else:
            branch.append(more)

    @rule(target=branches, branch=branches)
    def fork(self, branch: Branch) -> Branch:
        child = branch.fork()
        self.open.append(child)
        return child

    @rule(branch=branches, share=st.floats(0, 1))
    def roll_back(self, branch: Branch, share: float) -> None:
        branch.rollback(int(len(branch) * share))

    @rule(branch=branches, key=st.sampled_from("ab"), seconds=st.integers(1, 9), ranges=priorities)
    def pin(self, branch: Branch, key: str, seconds: int, ranges: tuple[Range, ...]) -> None:
        snapshot = branch.freeze()
        tenant = "tu"[ROOTS.index(branch.root)]
        grant = self.pins.pin(key, snapshot, Wish(tenant, self.now + seconds, ranges), now=self.now)
        snapshot.close()
        assert 0 <= grant.granted <= grant.asked == len(snapshot.pages)
        assert (grant.lease is not None) == (grant.granted > 0)
        assert grant.granted == grant.asked or "budget" in grant.why

    @rule(key=st.sampled_from("ab"), tenant=st.sampled_from("tu"), stale=st.booleans())
    def unpin(self, key: str, tenant: str, stale: bool) -> None:
        self.pins.unpin(key, tenant=tenant, stale=stale)
        assert self.pins.find(key, tenant=tenant) is None

    @rule(everybody=st.booleans())
    def unpin_all(self, everybody: bool) -> None:
        self.pins.unpin_all(tenant=None if everybody else "t")
        assert self.pins.pages_of("t") == 0
        assert not everybody or len(self.pins) == 0

    @rule()
    def give_way(self) -> None:
        before = len(self.pins)
        assert (self.pins.give_way() is not None) == (before > 0)
        assert len(self.pins) == max(0, before - 1)

    @rule(branch=branches, key=st.sampled_from("xy"), seconds=st.integers(1, 9), ranges=priorities)
    def hold(self, branch: Branch, key: str, seconds: int, ranges: tuple[Range, ...]) -> None:
        snapshot = branch.freeze()
        self.ledger.hold(key, snapshot, until=self.now + seconds, budget=9, terms=Terms(ranges=ranges))
        snapshot.close()

    @rule(branch=branches, key=st.sampled_from("vw"), ranges=priorities)
    def retain(self, branch: Branch, key: str, ranges: tuple[Range, ...]) -> None:
        assert self.ledger.retain(key, branch.pages, ranges) <= len(branch.pages)

    @rule(key=st.sampled_from("vwxy"), stale=st.booleans())
    def let_go(self, key: str, stale: bool) -> None:
        self.ledger.release(key, stale=stale)
        self.ledger.forgo(key)

    @rule(prompt=tokens, tenant=st.integers(0, 1))
    def demote(self, prompt: list[int], tenant: int) -> None:
        found = self.ledger.match(ROOTS[tenant], prompt)
        assert self.ledger.demote(found.pages) <= len(found.pages)
        assert self.ledger.match(ROOTS[tenant], prompt) == found

    @rule(seconds=st.integers(1, 5))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        known = self.ledger.blocks()
        self.ledger.expire(self.now)
        assert self.ledger.blocks() == known  # an end deletes nothing
        assert self.ledger.soonest is None or self.ledger.soonest > self.now

    @rule()
    def clear(self) -> None:
        self.ledger.clear()
        assert self.ledger.cached == 0

    @rule(branch=consumes(branches), stale=st.booleans())
    def close(self, branch: Branch, stale: bool) -> None:
        branch.close(stale=stale)
        self.open.remove(branch)

    @invariant()
    def all_books_are_right(self) -> None:
        self.ledger.check(holdings(self.open))
        assert self.pins.pages <= self.pins.total
        assert all(self.pins.pages_of(tenant) <= self.pins.each for tenant in "tu")
        assert all(lease.until > self.now for lease in self.ledger.leases.values())
        for event in self.feed.drain():
            self.mirror.apply(event)
        assert self.mirror.blocks() == self.ledger.blocks()

    def teardown(self) -> None:
        for branch in self.open:
            branch.close()
        self.ledger.expire(float("inf"))
        assert (self.ledger.held, self.ledger.available) == (0, ROOM)
        self.ledger.clear()
        self.ledger.check()
        assert self.ledger.free == ROOM


Lives.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestLives = Lives.TestCase
