"""Every event changes the books and yields the effects to carry out.

`Kernel.handle` is the only place where anything is decided. It takes the time as an argument and does no I/O, so the
live loop and the replay of a journal are two callers of one function, and the same events give the same effects.

Invariants: a turn is in exactly one of waiting, running, gone. Every hold has an end. Nothing a running turn or a hold
needs is ever evicted. No turn waits for ever: it starts, or is refused with a reason.
"""

from __future__ import annotations

from ..kvstore import BlockHash, Elsewhere, Ledger
from ..kvstore.pins import Pins
from .books import Books
from .effects import Effect, Refuse
from .errors import UnknownTurn
from .events import (
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
    Planned,
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
from .growing import Growing
from .hinting import Hinting
from .moves import Moves
from .policies import Policy
from .retaining import Retaining
from .setting import Setting
from .starting import Starting
from .thinning import GONE, Thinnings
from .turn import Turn
from .world import Program

_OPENING = (Tick, Moved, Lost, Hinted, Unmarked)
"""Events after which somebody may start who could not, though no turn and no hold has come to its end."""


class Kernel:
    """The schedule over one pool. `repr` shows waiting, running and the ledger in one line.

    Without `grows` a turn gets all the pages it may ever need at its start: its engine cannot take it out again.
    `elsewhere` are the tiers below the device; None: there are none. `setting` says what things cost here, what is
    known of tools, and what tenants weigh.
    """

    def __init__(
        self,
        ledger: Ledger,
        policy: Policy,
        *,
        grows: bool = True,
        elsewhere: Elsewhere | None = None,
        setting: Setting | None = None,
    ) -> None:
        self.ledger = ledger
        self.policy = policy
        self.setting = setting or Setting()
        self.moves = Moves(ledger, elsewhere or Elsewhere(ledger.page, {}))
        self.books = Books(ledger, self.moves, self.setting, grows=grows)
        self._effects: list[Effect] = []
        effects = self._effects
        self.pins = Pins(ledger, total=ledger.room // 2, each=ledger.room // 4)
        self._kept = Retaining(self.books, policy, effects=effects, reorder=self._reorder)
        self._starting = Starting(self._kept, policy, self.pins, effects=effects, cancel=self._cancel)
        self._growing = Growing(self._kept, self._starting, policy, effects)
        self._hinting = Hinting(self.books, self._kept, self.pins, effects)
        self._thinnings = Thinnings(self.books, self._kept, effects)

    @property
    def soonest(self) -> float | None:
        """When the next `Tick` is due, if nothing happens before."""
        ends = (self.ledger.soonest, self._starting.soonest, self._kept.prefetching.soonest)
        return min((end for end in ends if end is not None), default=None)

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
                self._growing.grow(event.turns)
            case Paused():
                self._end(event.turn, event.tools, event.shape)
            case Finished():
                self._end(event.turn, ())
            case Cancelled():
                self._cancel(event.turn)
            case ToolStarted():
                self.books.chronicle.called(self.books.program(event.program), event.call, event.tool, self.books.now)
            case ToolEnded():
                self._answered(event)
            case Interrupted():
                self._kept.park(event.program)
            case Forking():
                self.books.program(event.program).expected = event.width
            case Planned():
                self._plan(event)
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
        if isinstance(event, _OPENING):
            self.books.changes += 1
        self._kept.expire()
        self._kept.prefetching.fetch_due()
        self.books.chronicle.ask(self.books.now, self._window)
        self._starting.admit()
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
        program.tended, program.owner = event.tended, event.tenant
        root = BlockHash(bytes.fromhex(event.root))
        turn = Turn(event, program, root, list(event.tokens), self.books.number(), self.books.now)
        self.books.enter(turn)
        self._starting.enqueue(turn)

    def _advance(self, progress: Progress) -> None:
        turn = self.books.batch.get(progress.turn)
        if turn is None or turn.branch is None:
            return  # cancelled or preempted while the step ran: its completion comes too late
        done = len(turn.branch)
        turn.branch.append(turn.tokens[done : done + progress.computed])
        turn.tokens.extend(progress.said)
        self.books.catch_up(turn)
        self.books.chronicle.said(turn, len(progress.said))

    def _end(self, name: TurnId, tools: tuple[str, ...], shape: str = "") -> None:
        turn = self._leave(name)
        if turn is None:
            return
        if not tools:
            self.books.chronicle.finished(turn.program)
        elif turn.branch is not None:
            self._kept.retain(turn, turn.branch, self.books.pause(turn, tools, shape, len(turn.branch)))
        self._kept.leave(turn)
        self.books.forget_if_idle(turn.program)

    def _plan(self, event: Planned) -> None:
        program = self.books.program(event.program)
        program.steps = event.steps
        for branch, pause in program.pauses.items():
            if branch not in program.leases:
                seconds = self.policy.prefetch(self.books, program, pause)
                self._kept.prefetching.plan(program, branch, seconds)
        self.books.forget_if_idle(program)

    def _answered(self, event: ToolEnded) -> None:
        """A tool came back; with the last of them the program's next turn is near."""
        program = self.books.program(event.program)
        self.books.chronicle.answered(program, event.call)
        self.books.changes += self.books.workers is not None  # a worker is free
        if not program.tools:
            for branch in program.pauses:
                self._kept.prefetching.plan(program, branch, 0.0)
        self.books.forget_if_idle(program)

    def _cancel(self, name: TurnId) -> None:
        turn = self._leave(name)
        if turn is not None:
            self._kept.leave(turn)
            self.books.forget_if_idle(turn.program)

    def _leave(self, name: TurnId) -> Turn | None:
        self._starting.remove(name)
        self._effects += self.moves.abandon(name)
        return self.books.leave(name)

    def _close(self, event: Closed) -> None:
        program = self.books.programs.get(event.program) or self.books.resting(event.program)
        if program is not None:
            self._kept.let_go_all(program, f"its program {event.why}", "closed")
            for turn in sorted(program.live):
                self._cancel(turn)
                self._effects.append(Refuse(turn, f"its program {event.why}"))
            self.books.forget(program)
        self._kept.left.give_up(event.program)  # also of a program that held and ran nothing

    def _arrived(self, event: Moved) -> None:
        name, effects = self.moves.arrived(event)
        self._effects += effects
        if name is not None:
            self._starting.enqueue(self.books.turns[name])

    def _window(self, window: float) -> float:
        return self.policy.window(self.books, window)

    def _reorder(self, program: Program) -> None:
        # A turn counted as held may wait behind this: its place is computed anew.
        for name in sorted(program.live):
            if self.books.turns[name].branch is None and not self.moves.fetching(name):
                self._starting.enqueue(self.books.turns[name])

    def _reweight(self, event: Reweighted) -> None:
        if event.kv == "keep":
            return
        roots = {BlockHash(bytes.fromhex(old)): BlockHash(bytes.fromhex(new)) for old, new in event.roots}
        why = "the weights have changed"
        self._kept.drop_all(why)
        if event.kv == "recompute":
            for turn in list(self.books.batch.values()):
                self._growing.suspend(turn, why)
        for turn in self.books.turns.values():
            waits = self.moves.fetching(turn.arrived.turn)
            self._effects += self.moves.abandon(turn.arrived.turn)
            if waits:
                self._starting.enqueue(turn)
            # What has begun and keeps its past goes on under the name of that past; everything else begins anew.
            if turn.branch is None and (event.kv == "recompute" or not turn.preempted):
                turn.root = roots.get(turn.root, GONE if turn.arrived.least else turn.root)
        if event.kv != "salt":
            self.ledger.clear()
