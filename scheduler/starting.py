"""Who starts, on what is found of its context, and who waits for what somebody else is just computing."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from ..kvstore import GroupMatch, Match, resume
from ..kvstore import find as look_up
from ..kvstore.pins import Pins
from .books import Books
from .effects import Effect, Evict, Refuse, Start, Stop, Wake
from .events import DEVICE, TurnId
from .policies import Policy
from .queue import Queue
from .retaining import Retaining
from .turn import Turn
from .world import Waiting


@dataclass(frozen=True, slots=True)
class _Stuck:
    """Why the first in order did not start when it was looked at last: nothing has changed as long as this has not."""

    turn: Turn
    key: tuple[float, ...]
    changes: int
    available: int
    maker: Turn | None = None
    """Who is just computing what both need."""
    shared: int = 0
    """Tokens that both have in common."""

    def still(self, turn: Turn, books: Books) -> bool:
        if (turn, turn.key, books.changes) != (self.turn, self.key, self.changes) or turn.arrived.least:
            return False  # what a thinned context stands on may be evicted at any time
        if self.maker is None:
            return books.available <= self.available
        made = 0 if self.maker.branch is None else len(self.maker.branch)
        return self.maker.missing > books.page and made + books.page < self.shared


class Starting:
    """The waiting line. Changes the books and adds to `effects`; `cancel` ends a turn."""

    def __init__(
        self, kept: Retaining, policy: Policy, pins: Pins, *, effects: list[Effect], cancel: Callable[[TurnId], None]
    ) -> None:
        self._books: Books = kept.books
        self._kept = kept
        self._moves = kept.moves
        self._policy = policy
        self._pins = pins
        self._effects = effects
        self._cancel = cancel
        self._queue = Queue()
        self._later: list[tuple[float, int, TurnId]] = []
        self._stuck: _Stuck | None = None

    def enqueue(self, turn: Turn) -> None:
        """Let a turn wait, or move it to the place that it has by now."""
        view = self._view(turn)
        self._queue.put(turn, self._policy.order(self._books, view))
        later = self._policy.again(self._books, view)
        if later < inf:
            heapq.heappush(self._later, (later, turn.number, turn.arrived.turn))
            self._effects.append(Wake(later, "the place of a waiting turn"))

    def remove(self, name: TurnId) -> None:
        """It waits no longer; unknown ones are ignored."""
        self._queue.remove(name)

    @property
    def soonest(self) -> float | None:
        """When a place is to be looked at anew."""
        return self._later[0][0] if self._later else None

    def admit(self) -> None:
        """Start whoever may; nobody overtakes: what is first in order is first served."""
        while self._later and self._later[0][0] <= self._books.now:
            turn = self._queue.get(heapq.heappop(self._later)[2])
            if turn is not None:
                self._books.changes += 1
                self._queue.put(turn, self._policy.order(self._books, self._view(turn)))
        while (turn := self._queue.first()) is not None:
            if self._stuck is not None and self._stuck.still(turn, self._books):
                return
            self._stuck = None
            if not self._start(turn):
                return
            self._queue.remove(turn.arrived.turn)

    def stop(self, turn: Turn) -> None:
        """A turn can never grow further."""
        why = f"the pool of {self._books.room} pages is full with this turn alone"
        self._effects.append(Stop(turn.arrived.turn, why))
        self._cancel(turn.arrived.turn)

    def note_evicted(self, turn: Turn, before: int) -> None:
        if gone := self._books.ledger.evicted - before:
            self._effects.append(Evict(turn.arrived.turn, gone, f"room for {turn.program.id}"))

    def _view(self, turn: Turn) -> Waiting:
        return turn.view(holds=self._held_for(turn) is not None)

    def _held_for(self, turn: Turn) -> str | None:
        return self._kept.holds.find(turn.program, turn.arrived.branch, turn.tokens)

    def _start(self, turn: Turn) -> bool:
        # The last token is always computed: its logits are what the turn is for.
        books, known = self._books, turn.tokens[:-1]
        whole = len(turn.tokens) + (0 if books.grows else turn.arrived.max_tokens)
        if books.pages(0, whole) > books.room:
            self.stop(turn)  # it was taken out when it had grown as large as the pool
            return True
        match, pages, idle = self._lacking(turn, known, whole)
        if match.tokens(books.page) < turn.arrived.least:
            self._effects.append(_lost(turn))
            self._cancel(turn.arrived.turn)
            return True
        if maker := self._in_the_making(turn, match.tokens(books.page)):
            other, shared = maker
            self._stuck = _Stuck(turn, turn.key, books.changes, books.available, other, shared)
            return False
        own = self._held_for(turn)
        # Who starts beside others leaves each of them a page to grow into, else they would preempt each other at once.
        growth = books.promised if books.grows else 0
        while pages + idle + growth > books.available or not self._may(turn, pages + idle):
            # Pins give way only where nobody runs whose end could make room, and last of all what is held for the turn
            # itself: a page of which it needs but a part would be in its way for ever.
            if (
                not self._kept.make_way(turn, keep=own)
                and not self._moves.give_back(turn.arrived.turn)
                and (books.running or not (self._pins.give_way() or self._kept.make_way(turn)))
            ):
                self._stuck = _Stuck(turn, turn.key, books.changes, books.available)
                return False
            match, pages, idle = self._lacking(turn, known, whole)
        evicted, name = books.ledger.evicted, turn.arrived.turn
        tier = self._moves.fetched(name)
        if not tier and (coming := self._moves.bring(name, turn.root, known, match)) is not None:
            self._effects += coming
            self.note_evicted(turn, evicted)
            return True  # it waits for them, and not in the queue
        self._run(turn, known, whole, evicted)
        return True

    def _run(self, turn: Turn, known: Sequence[int], whole: int, evicted: int) -> None:
        name, tier = turn.arrived.turn, self._moves.fetched(turn.arrived.turn)
        branch = resume(self._books.ledger, turn.root, known)
        self._effects += self._moves.abandon(name)
        reuse = len(branch)
        grown = branch.reserve(self._books.ledger.groups.stretch(whole - reuse))
        turn.branch = branch
        self._books.run(turn, reuse)
        turn.program.turns += 1
        taken, why = self._take_over(turn)
        if tier not in ("", DEVICE):
            why = f"fetched from {tier}"
        why = why or ("cached" if reuse else "computed from the start")
        if turn.preempted:
            why = f"again after preemption, {why}"
        self._effects.append(Start(name, reuse, branch.table, grown.copy, why, taken, tier or DEVICE, grown.others))
        self.note_evicted(turn, evicted)

    def _may(self, turn: Turn, pages: int) -> bool:
        books = self._books
        if not (books.running or books.holding):
            return True
        return self._policy.admit(books, self._view(turn), pages)

    def _lacking(self, turn: Turn, known: Sequence[int], whole: int) -> tuple[Match | GroupMatch, int, int]:
        """What is found of a turn, the pages that it needs besides, and how many of those found nobody holds yet."""
        match = look_up(self._books.ledger, turn.root, known)
        # A last page that was fetched for this turn is its own already: it is not to be had a second time.
        own_tails = sum(self._moves.keeps(turn.arrived.turn, tail) for tail in match.tails)
        pages = self._books.pages(match.tokens(self._books.page), whole) - own_tails
        return match, pages, self._books.ledger.idle(match.pages)

    def _in_the_making(self, turn: Turn, known: int) -> tuple[Turn, int] | None:
        """Another turn that is about to compute or fetch, for both, more than a page of what this one lacks.

        Starting beside it would compute the same tokens twice; waiting for a step or two shares them.
        """
        more = known + self._books.page
        coming = (self._books.turns[name] for name in self._moves.waiting)
        for other in (*self._books.making.values(), *(one for one in coming if one.missing > self._books.page)):
            if shared := turn.shares(other, more):
                return other, shared
        return None

    def _take_over(self, turn: Turn) -> tuple[str | None, str]:
        """The held branch that a turn goes on from, if any, and what is told of that."""
        self._kept.left.give_up(turn.program.id, turn.arrived.branch)  # but for what the turn stands on now
        branch = self._held_for(turn)
        if branch is None:
            return None, ""
        if turn.program.expected > 1:
            turn.program.expected -= 1  # siblings are still to start from the same context
            return branch, "held for its branches"
        extends = self._kept.holds.extends(turn.program, branch, turn.tokens)
        why = "extended by the next turn" if extends else "replaced by another turn of its branch"
        self._kept.let_go(turn.program, branch, why, "resumed" if extends else "superseded")
        return (branch, "held") if extends else (None, "")


def _lost(turn: Turn) -> Refuse:
    """A turn does not find what it stands on."""
    least = turn.arrived.least
    why = f"it stands on {least} tokens of a thinned context, and not all of them are there any more: thin it anew"
    return Refuse(turn.arrived.turn, why, lost=True)
