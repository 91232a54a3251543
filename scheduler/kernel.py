"""Every event changes the books and yields the effects to carry out.

`Kernel.handle` is the only place where anything is decided. It takes the time as an argument and does no I/O, so the
live loop and the replay of a journal are two callers of one function, and the same events give the same effects.

Invariants: a turn is in exactly one of waiting, running, gone. Every hold has an end. Nothing a running turn or a hold
needs is ever evicted. No turn waits for ever: it starts, or is refused with a reason.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..kvstore import BlockHash, Elsewhere, GroupMatch, Ledger, Match, OutOfPages, resume
from ..kvstore import find as look_up
from ..kvstore.pins import Pins
from .books import Books
from .effects import Effect, Evict, Grow, Preempt, Refuse, Start, Stop
from .errors import UnknownTurn
from .events import (
    DEVICE,
    Arrived,
    Cancelled,
    Closed,
    Event,
    Finished,
    Forking,
    Hinted,
    Interrupted,
    Known,
    Lost,
    Marked,
    Moved,
    NeedRoom,
    Paused,
    Placed,
    Progress,
    Reweighted,
    Stepped,
    Thinned,
    Thinning,
    Tick,
    ToolEnded,
    ToolStarted,
    Travelled,
    TurnId,
    Unmarked,
)
from .hinting import Hinting
from .moves import Moves
from .policies import Policy
from .queue import Queue
from .retaining import Retaining
from .thinning import GONE, Thinnings
from .turn import Turn
from .world import Program, Waiting

HOLD_BUDGET = 0.9
"""Share of the pool that may be under holds and marks at once. They also give way, so this is a second line."""


class Kernel:
    """The schedule over one pool. `repr` shows waiting, running and the ledger in one line.

    Without `grows` a turn gets all the pages it may ever need at its start: its engine cannot take it out again.
    `elsewhere` are the tiers below the device; None: there are none.
    """

    def __init__(
        self,
        ledger: Ledger,
        policy: Policy,
        *,
        hold_budget: float = HOLD_BUDGET,
        grows: bool = True,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.ledger = ledger
        self.policy = policy
        self.moves = Moves(ledger, elsewhere or Elsewhere(ledger.page, {}))
        self.books = Books(ledger, self.moves, grows=grows)
        self.hold_budget = hold_budget
        self._queue = Queue()
        self._effects: list[Effect] = []
        budget = int(ledger.room * hold_budget)
        self.pins = Pins(ledger, total=ledger.room // 2, each=ledger.room // 4)
        self._kept = Retaining(self.books, policy, budget, effects=self._effects, reorder=self._reorder)
        self._hinting = Hinting(self.books, self._kept, self.pins, self._effects)
        self._thinnings = Thinnings(self.books, self._kept, self._effects)

    # -- the one entry

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Change the books by one event at `now` (seconds on a clock that never goes back) and say what follows."""
        self.books.now = max(self.books.now, now)
        self._effects.clear()
        match event:
            case Arrived():
                self._arrive(event)
            case Stepped():
                for progress in event.progress:
                    self._advance(progress)
            case NeedRoom():
                self._grow_all(event.turns)
            case Paused():
                self._end(event.turn, event.tools)
            case Finished():
                self._end(event.turn, None)
            case Cancelled():
                self._cancel(event.turn)
            case ToolStarted():
                self.books.program(event.program).tools[event.call] = (event.tool, self.books.now)
            case ToolEnded():
                self.books.program(event.program).tools.pop(event.call, None)
            case Interrupted():
                self._kept.park(event.program)
            case Forking():
                self.books.program(event.program).expected = event.width
            case Travelled():
                program = self.books.program(event.program)
                self._kept.let_go_all(program, f"set back to {event.checkpoint}", "travelled")
                self._kept.left.give_up(program.id)
            case Closed():
                self._close(event)
            case Marked():
                self._kept.mark(event)
            case Unmarked():
                self._kept.unmark(event.keys)
            case Reweighted():
                self._reweight(event)
            case Moved():
                self._arrived(event)
            case Known():
                self.moves.elsewhere.put(event.tier, [block.link for block in event.blocks])
                self._effects += self.moves.spill(event.tier)
            case Lost():
                self.moves.lost(event)
            case Thinning() | Thinned() | Placed():
                self._thinnings.hear(event)
            case Hinted():
                self._hinting.hear(event)
            case Tick():
                pass
        self._kept.expire()
        self._admit()
        return list(self._effects)

    def __repr__(self) -> str:
        return f"<Kernel {self.policy.name} | {self.books!r}>"

    # -- turns come and go

    def _arrive(self, event: Arrived) -> None:
        if event.turn in self.books.turns:
            raise UnknownTurn(f"turn {event.turn} has arrived already: give every turn an id of its own")
        more = 1 if self.books.grows else event.max_tokens
        least = self.books.pages(0, len(event.tokens) + more)
        if not event.tokens:
            self._effects.append(Refuse(event.turn, "it has no tokens: a prompt needs at least one"))
            return
        if least > self.books.room:
            size, room = self.books.page, self.books.room
            what = f"its prompt of {len(event.tokens)} tokens and {more} more need {least} pages of {size}"
            advice = "shorten the prompt or give the pool more tokens"
            self._effects.append(Refuse(event.turn, f"{what}, the pool has {room}: {advice}"))
            return
        program = self.books.program(event.program)
        program.tended = event.tended
        root = BlockHash(bytes.fromhex(event.root))
        turn = Turn(event, program, root, list(event.tokens), self.books.number(), self.books.now)
        self.books.enter(turn)
        self._enqueue(turn)

    def _advance(self, progress: Progress) -> None:
        turn = self.books.batch.get(progress.turn)
        if turn is None or turn.branch is None:
            return  # cancelled or preempted while the step ran: its completion comes too late
        done = len(turn.branch)
        turn.branch.append(turn.tokens[done : done + progress.computed])
        turn.tokens.extend(progress.said)

    def _end(self, name: TurnId, tools: tuple[str, ...] | None) -> None:
        turn = self._leave(name)
        if turn is None:
            return
        if turn.branch is not None and tools:
            self._kept.retain(turn, turn.branch, tools)
        self._kept.leave(turn)
        self.books.forget_if_idle(turn.program)

    def _cancel(self, name: TurnId) -> None:
        turn = self._leave(name)
        if turn is not None:
            self._kept.leave(turn)
            self.books.forget_if_idle(turn.program)

    def _leave(self, name: TurnId) -> Turn | None:
        self._queue.remove(name)
        self._effects += self.moves.abandon(name)
        return self.books.leave(name)

    def _close(self, event: Closed) -> None:
        program = self.books.programs.get(event.program)
        if program is not None:
            self._kept.let_go_all(program, f"its program {event.why}", "closed")
            program.tools.clear()
            for turn in sorted(program.live):
                self._cancel(turn)
                self._effects.append(Refuse(turn, f"its program {event.why}"))
            self.books.forget(program)
        self._kept.left.give_up(event.program)  # also of a program that held and ran nothing

    # -- starting

    def _enqueue(self, turn: Turn) -> None:
        self._queue.put(turn, self.policy.order(self.books, self._view(turn)))

    def _view(self, turn: Turn) -> Waiting:
        return turn.view(holds=self._held_for(turn) is not None)

    def _admit(self) -> None:
        # Nobody overtakes: what is first in order is first served.
        while (turn := self._queue.first()) is not None and self._start(turn):
            self._queue.remove(turn.arrived.turn)

    def _start(self, turn: Turn) -> bool:
        # The last token is always computed: its logits are what the turn is for.
        known = turn.tokens[:-1]
        whole = len(turn.tokens) + (0 if self.books.grows else turn.arrived.max_tokens)
        if self.books.pages(0, whole) > self.books.room:
            self._stop(turn)  # it was taken out when it had grown as large as the pool
            return True
        match, pages, idle = self._lacking(turn, known, whole)
        if match.tokens(self.books.page) < turn.arrived.least:
            self._effects.append(self._thinnings.lost(turn))
            self._cancel(turn.arrived.turn)
            return True
        if self._in_the_making(turn, match.tokens(self.books.page)):
            return False
        own = self._held_for(turn)
        # Who starts beside others leaves each of them a page to grow into, else they would preempt each other at once.
        growth = self.books.promised if self.books.grows else 0
        while pages + idle + growth > self.books.available or not self.policy.admit(
            self.books, self._view(turn), pages + idle
        ):
            # Pins are the last to give way, and only where nobody runs whose end could make room.
            if (
                not self._kept.make_way(turn, keep=own)
                and not self.moves.give_back(turn.arrived.turn)
                and (self.books.running or not self.pins.give_way())
            ):
                return False
            match, pages, idle = self._lacking(turn, known, whole)
        evicted = self.ledger.evicted
        name, tier = turn.arrived.turn, self.moves.fetched(turn.arrived.turn)
        if not tier and (coming := self.moves.bring(name, turn.root, known, match)):
            self._effects += coming
            self._note_evicted(turn, evicted)
            return True  # it waits for them, and not in the queue
        branch = resume(self.ledger, turn.root, known)
        self._effects += self.moves.abandon(name)
        reuse = len(branch)
        grown = branch.reserve(self.ledger.groups.stretch(whole - reuse))
        turn.branch = branch
        self.books.run(turn)
        turn.program.turns += 1
        taken, why = self._take_over(turn)
        why = (
            f"fetched from {tier}"
            if tier not in ("", DEVICE)
            else why or ("cached" if reuse else "computed from the start")
        )
        if turn.preempted:
            why = f"again after preemption, {why}"
        table, copy, others = branch.table, grown.copy, grown.others
        self._effects.append(Start(name, reuse, table, copy, why, taken, tier or DEVICE, others))
        self._note_evicted(turn, evicted)
        return True

    def _lacking(self, turn: Turn, known: Sequence[int], whole: int) -> tuple[Match | GroupMatch, int, int]:
        """What is found of a turn, the pages that it needs besides, and how many of those found nobody holds yet."""
        match = look_up(self.ledger, turn.root, known)
        # A last page that was fetched for this turn is its own already: it is not to be had a second time.
        own_tails = sum(self.moves.keeps(turn.arrived.turn, tail) for tail in match.tails)
        pages = self.books.pages(match.tokens(self.books.page), whole) - own_tails
        return match, pages, self.ledger.idle(match.pages)

    def _held_for(self, turn: Turn) -> str | None:
        return self._kept.holds.find(turn.program, turn.arrived.branch, turn.tokens)

    def _in_the_making(self, turn: Turn, known: int) -> bool:
        """Is another turn about to compute or fetch, for both, more than a page of what this one lacks?

        Starting beside it would compute the same tokens twice; waiting for a step or two shares them.
        """
        more = known + self.books.page
        coming = (self.books.turns[name] for name in self.moves.waiting)
        return any(
            other.missing > self.books.page and turn.shares(other) > more
            for other in (*self.books.batch.values(), *coming)
        )

    def _arrived(self, event: Moved) -> None:
        name, effects = self.moves.arrived(event)
        self._effects += effects
        if name is not None:
            self._enqueue(self.books.turns[name])

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

    # -- room

    def _grow_all(self, names: tuple[TurnId, ...]) -> None:
        turns = [self.books.batch[name] for name in names if name in self.books.batch]
        for turn in sorted(turns, key=lambda turn: turn.program.number):
            if turn.arrived.turn in self.books.batch:  # it may have been preempted for one before it
                self._grow(turn)

    def _grow(self, turn: Turn) -> None:
        assert turn.branch is not None  # running turns have one
        evicted = self.ledger.evicted
        while True:
            try:
                growth = turn.branch.reserve(self.ledger.groups.stretch(len(turn.tokens) - len(turn.branch)))
            except OutOfPages:
                if not self._kept.make_way(turn) and not self._preempt_for(turn):
                    return
            else:
                if growth.pages or growth.copy:
                    grow = Grow(turn.arrived.turn, growth.pages, growth.copy, "its pages were full", growth.others)
                    self._effects.append(grow)
                    self._note_evicted(turn, evicted)
                return

    def _note_evicted(self, turn: Turn, before: int) -> None:
        if gone := self.ledger.evicted - before:
            self._effects.append(Evict(turn.arrived.turn, gone, f"room for {turn.program.id}"))

    def _preempt_for(self, turn: Turn) -> bool:
        """Make room by taking somebody out of the batch; False if that was `turn` itself."""
        victims = max(
            self.books.batch.values(), key=lambda other: (self.policy.preempt(self.books, other.program), other.number)
        )
        if victims is turn and self.books.pages(0, len(turn.tokens)) > self.books.room:
            self._stop(turn)
            return False
        self._suspend(victims, f"room for {turn.program.id}" if victims is not turn else "no room to grow")
        return victims is not turn

    def _stop(self, turn: Turn) -> None:
        self._effects.append(
            Stop(turn.arrived.turn, f"the pool of {self.books.room} pages is full with this turn alone")
        )
        self._cancel(turn.arrived.turn)

    def _suspend(self, turn: Turn, why: str) -> None:
        self._kept.leave(turn)
        turn.branch = None
        turn.preempted = True
        self.books.unbatch(turn)
        self._effects.append(Preempt(turn.arrived.turn, why))
        self._enqueue(turn)

    def _reorder(self, program: Program) -> None:
        # A turn counted as held may wait behind this: its place is computed anew.
        for name in sorted(program.live):
            if self.books.turns[name].branch is None and not self.moves.fetching(name):
                self._enqueue(self.books.turns[name])

    def _reweight(self, event: Reweighted) -> None:
        if event.kv == "keep":
            return
        roots = {BlockHash(bytes.fromhex(old)): BlockHash(bytes.fromhex(new)) for old, new in event.roots}
        why = "the weights have changed"
        self._kept.drop_all(why)
        if event.kv == "recompute":
            for turn in list(self.books.batch.values()):
                self._suspend(turn, why)
        for turn in self.books.turns.values():
            waits = self.moves.fetching(turn.arrived.turn)
            self._effects += self.moves.abandon(turn.arrived.turn)
            if waits:
                self._enqueue(turn)
            # What has begun and keeps its past goes on under the name of that past; everything else begins anew.
            if turn.branch is None and (event.kv == "recompute" or not turn.preempted):
                turn.root = roots.get(turn.root, GONE if turn.arrived.least else turn.root)
        if event.kv != "salt":
            self.ledger.clear()
