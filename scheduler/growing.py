"""Running turns get room as they grow; who leaves the batch for that, and whether a copy of its context is made."""

from __future__ import annotations

from ..kvstore import Branch, Grouped, OutOfPages
from .books import Books
from .effects import Effect, Grow, Preempt
from .events import TurnId
from .policies import Policy
from .retaining import Retaining
from .starting import Starting
from .turn import Turn


class Growing:
    """Changes the books and adds to `effects`."""

    def __init__(self, kept: Retaining, starting: Starting, policy: Policy, effects: list[Effect]) -> None:
        self._books: Books = kept.books
        self._kept = kept
        self._starting = starting
        self._policy = policy
        self._effects = effects

    def grow(self, names: tuple[TurnId, ...]) -> None:
        """These have filled their pages; programs that came earlier are served first."""
        turns = [self._books.batch[name] for name in names if name in self._books.batch]
        for turn in sorted(turns, key=lambda turn: turn.program.number):
            if turn.arrived.turn in self._books.batch:  # it may have been preempted for one before it
                self._grow(turn)

    def suspend(self, turn: Turn, why: str, *, need: int | None = None) -> None:
        """Take a turn out of the batch; it waits again. Where `need` pages are wanted, the rest of its context may be
        copied: what is being copied is held until then, so those that are needed now are computed again.
        """
        if turn.branch is not None and need is not None:
            self._swap(turn, turn.branch, need, why)
        self._kept.leave(turn)
        turn.branch = None
        self._books.unbatch(turn)
        turn.preempted = True
        self._effects.append(Preempt(turn.arrived.turn, why))
        self._starting.enqueue(turn)

    def _swap(self, turn: Turn, branch: Branch | Grouped, need: int, why: str) -> None:
        if not self._books.tiers or not self._books.ledger.groups.plain:
            return
        tiers = self._policy.swap(self._books, len(branch))
        pages = list(branch.pages) if tiers else []
        while pages and need > 0:
            need -= self._books.ledger.refs(pages.pop()) == 1
        length = min(len(branch), len(pages) * self._books.page)
        if length:
            self._kept.copy(branch.root, pages, length, tiers=tiers, why=why)

    def _grow(self, turn: Turn) -> None:
        assert turn.branch is not None  # running turns have one
        ledger = self._books.ledger
        evicted = ledger.evicted
        while True:
            try:
                growth = turn.branch.reserve(ledger.groups.stretch(len(turn.tokens) - len(turn.branch)))
            except OutOfPages as short:
                if not self._kept.make_way(turn) and not self._preempt_for(turn, short.asked - short.available):
                    return
            else:
                if growth.pages or growth.copy:
                    grow = Grow(turn.arrived.turn, growth.pages, growth.copy, "its pages were full", growth.others)
                    self._effects.append(grow)
                    self._starting.note_evicted(turn, evicted)
                return

    def _preempt_for(self, turn: Turn, need: int) -> bool:
        """Make room by taking somebody out of the batch; False if that was `turn` itself."""
        leaves = self._policy.preempt
        victim = max(self._books.batch.values(), key=lambda one: (leaves(self._books, one.program), one.number))
        if victim is turn and self._books.pages(0, len(turn.tokens)) > self._books.room:
            self._starting.stop(turn)
            return False
        self.suspend(victim, f"room for {turn.program.id}" if victim is not turn else "no room to grow", need=need)
        return victim is not turn
