"""Every event changes the books and yields the effects to carry out.

`Kernel.handle` is the only place where anything is decided. It takes the time as an argument and does no I/O, so the
live loop and the replay of a journal are two callers of one function, and the same events give the same effects.

Invariants: a turn is in exactly one of waiting, running, gone. Every hold has an end. Nothing a running turn or a hold
needs is ever evicted. No turn waits for ever: it starts, or is refused with a reason.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from ..kvstore import BlockHash, Branch, Ledger, OutOfPages
from .errors import UnknownTurn
from .events import (
    Arrived,
    Cancelled,
    Closed,
    Effect,
    Event,
    Finished,
    Forking,
    Grow,
    Interrupted,
    NeedRoom,
    Paused,
    Preempt,
    ProgramId,
    Progress,
    Refuse,
    Start,
    Stepped,
    Stop,
    Tick,
    ToolEnded,
    ToolStarted,
    Travelled,
    TurnId,
)
from .holds import Holds
from .policies import Policy
from .turn import Turn
from .world import Program, Waiting

HOLD_BUDGET = 0.9
"""Share of the pool that may be under holds at once. Holds also yield to older programs, so this is a second line."""


class Kernel:
    """The schedule over one pool. `repr` shows waiting, running and the ledger in one line."""

    def __init__(self, ledger: Ledger, policy: Policy, *, hold_budget: float = HOLD_BUDGET) -> None:
        self.ledger = ledger
        self.policy = policy
        self.now = 0.0
        self._holds = Holds(ledger, int(ledger.room * hold_budget))
        self._turns: dict[TurnId, Turn] = {}
        self._programs: dict[ProgramId, Program] = {}
        self._queue: list[tuple[tuple[float, ...], int, TurnId]] = []
        self._running: dict[TurnId, Turn] = {}
        self._count = 0
        self._effects: list[Effect] = []

    # -- the world, as policies see it

    @property
    def room(self) -> int:
        return self.ledger.room

    @property
    def available(self) -> int:
        return self.ledger.available

    @property
    def held(self) -> int:
        return self.ledger.held

    @property
    def page(self) -> int:
        return self.ledger.page

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Turns that have arrived and do not run."""
        return len(self._turns) - len(self._running)

    @property
    def programs(self) -> Mapping[ProgramId, Program]:
        return self._programs

    # -- the one entry

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Change the books by one event at `now` (seconds on a clock that never goes back) and say what follows."""
        self.now = max(self.now, now)
        self._effects = []
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
                self._program(event.program).tools[event.call] = (event.tool, self.now)
            case ToolEnded():
                self._program(event.program).tools.pop(event.call, None)
            case Interrupted():
                self._park(event.program)
            case Forking():
                self._program(event.program).expected = event.width
            case Travelled():
                self._let_go_all(self._program(event.program), f"set back to {event.checkpoint}", stale=True)
            case Closed():
                self._close(event)
            case Tick():
                pass
        self._expire()
        self._admit()
        return self._effects

    def check(self) -> None:
        """Raise BrokenBooks unless the ledger's invariants hold for all turns and leases."""
        self.ledger.check(turn.branch.pages for turn in self._turns.values() if turn.branch is not None)

    def __repr__(self) -> str:
        return f"<Kernel {self.policy.name} | {self.waiting} waiting | {self.running} running | {self.ledger!r}>"

    # -- turns come and go

    def _arrive(self, event: Arrived) -> None:
        if event.turn in self._turns:
            raise UnknownTurn(f"turn {event.turn} has arrived already: give every turn an id of its own")
        least = -(-(len(event.tokens) + 1) // self.page)
        if not event.tokens:
            self._effects.append(Refuse(event.turn, "it has no tokens: a prompt needs at least one"))
            return
        if least > self.room:
            self._effects.append(
                Refuse(
                    event.turn,
                    f"its prompt of {len(event.tokens)} tokens and one more need {least} pages of {self.page}, "
                    f"the pool has {self.room}: shorten the prompt or give the pool more tokens",
                )
            )
            return
        program = self._program(event.program)
        program.tended = event.tended
        self._count += 1
        turn = Turn(event, program, list(event.tokens), self._count, self.now)
        self._turns[event.turn] = turn
        program.live.add(event.turn)
        self._enqueue(turn)

    def _advance(self, progress: Progress) -> None:
        turn = self._running.get(progress.turn)
        if turn is None or turn.branch is None:
            return  # cancelled or preempted while the step ran: its completion comes too late
        done = len(turn.branch)
        turn.branch.append(turn.tokens[done : done + progress.computed])
        turn.tokens.extend(progress.said)

    def _end(self, name: TurnId, tools: tuple[str, ...] | None) -> None:
        turn = self._leave(name)
        if turn is None:
            return
        if turn.branch is not None:
            if tools:
                self._retain(turn, turn.branch, tools)
            turn.branch.close()
        self._forget_if_idle(turn.program)

    def _cancel(self, name: TurnId) -> None:
        turn = self._leave(name)
        if turn is not None:
            if turn.branch is not None:
                turn.branch.close()
            self._forget_if_idle(turn.program)

    def _leave(self, name: TurnId) -> Turn | None:
        turn = self._turns.pop(name, None)
        if turn is not None:
            turn.program.live.discard(name)
            if self._running.pop(name, None) is not None:
                turn.program.running -= 1
        return turn

    def _program(self, name: ProgramId) -> Program:
        program = self._programs.get(name)
        if program is None:
            self._count += 1
            program = self._programs[name] = Program(name, self.now, self._count)
        return program

    def _close(self, event: Closed) -> None:
        program = self._programs.get(event.program)
        if program is None:
            return
        self._let_go_all(program, f"its program {event.why}", stale=True)
        program.tools.clear()
        for turn in sorted(program.live):
            self._cancel(turn)
            self._effects.append(Refuse(turn, f"its program {event.why}"))
        self._programs.pop(event.program, None)

    def _forget_if_idle(self, program: Program) -> None:
        # A program that holds nothing and runs nothing is known again when its next turn comes; one that never
        # says goodbye must not stay in the books for ever. It keeps its place as long as it holds or its tools run.
        if not (program.live or program.leases or program.tools):
            self._programs.pop(program.id, None)

    # -- starting

    def _enqueue(self, turn: Turn) -> None:
        turn.key = self.policy.order(self, self._view(turn))
        heapq.heappush(self._queue, (turn.key, turn.number, turn.arrived.turn))

    def _view(self, turn: Turn) -> Waiting:
        return turn.view(holds=self._held_for(turn) is not None)

    def _admit(self) -> None:
        while self._queue:
            key, _, name = self._queue[0]
            turn = self._turns.get(name)
            if turn is None or name in self._running or turn.key != key:
                heapq.heappop(self._queue)
                continue
            if not self._start(turn):
                return  # nobody overtakes: what is first in order is first served
            heapq.heappop(self._queue)

    def _start(self, turn: Turn) -> bool:
        root = BlockHash(bytes.fromhex(turn.arrived.root))
        # The last token is always computed: its logits are what the turn is for.
        known = turn.tokens[:-1]
        match = self.ledger.match(root, known)
        pages = -(-len(turn.tokens) // self.page) - len(match.pages)
        idle = self.ledger.idle(match.pages)
        if self._in_the_making(turn, match.tokens(self.page)):
            return False
        own = self._held_for(turn)
        # Who starts beside others leaves each of them a page to grow into, else they would preempt each other at once.
        while pages + idle + self.running > self.available or not self.policy.admit(
            self, self._view(turn), pages + idle
        ):
            if not self._make_way(turn.program, keep=own):
                return False
            match = self.ledger.match(root, known)
            idle = self.ledger.idle(match.pages)
        branch = Branch.resume(self.ledger, root, known)
        reuse = len(branch)
        growth = branch.reserve(len(turn.tokens) - reuse)
        turn.branch = branch
        self._running[turn.arrived.turn] = turn
        turn.program.running += 1
        turn.program.turns += 1
        why = self._take_over(turn) or ("cached" if reuse else "computed from the start")
        if turn.preempted:
            why = f"again after preemption, {why}"
        self._effects.append(Start(turn.arrived.turn, reuse, tuple(branch.pages), growth.copy, why))
        return True

    def _held_for(self, turn: Turn) -> str | None:
        return self._holds.find(turn.program, turn.arrived.branch, turn.tokens)

    def _in_the_making(self, turn: Turn, known: int) -> bool:
        """Is a running turn about to compute, for both, more than a page of what this one lacks?

        Starting beside it would compute the same tokens twice; waiting for a step or two shares them.
        """
        more = known + self.page
        return any(other.missing > self.page and turn.shares(other) > more for other in self._running.values())

    def _take_over(self, turn: Turn) -> str | None:
        branch = self._held_for(turn)
        if branch is None:
            return None
        if turn.program.expected > 1:
            turn.program.expected -= 1  # siblings are still to start from the same context
            return "held for its branches"
        extends = self._holds.extends(turn.program, branch, turn.tokens)
        why = "extended by the next turn" if extends else "replaced by another turn of its branch"
        self._let_go(turn.program, branch, why, stale=True)
        return "held" if extends else "cached"

    # -- room

    def _make_way(self, wanting: Program, *, keep: str | None = None) -> bool:
        """End one hold for the sake of `wanting`: the one whose program came last, its own included but for `keep`."""
        holders = [
            program
            for program in self._programs.values()
            if program.leases and (program is wanting or self.policy.yields(self, program, wanting))
        ]
        for program in sorted(holders, key=lambda holder: -holder.number):
            branch = next((branch for branch in program.leases if program is not wanting or branch != keep), None)
            if branch is not None:
                self._let_go(program, branch, f"room for {wanting.id}")
                return True
        return False

    def _grow_all(self, names: tuple[TurnId, ...]) -> None:
        turns = [self._running[name] for name in names if name in self._running]
        for turn in sorted(turns, key=lambda turn: turn.program.number):
            if turn.arrived.turn in self._running:  # it may have been preempted for one before it
                self._grow(turn)

    def _grow(self, turn: Turn) -> None:
        assert turn.branch is not None  # running turns have one
        while True:
            try:
                growth = turn.branch.reserve(len(turn.tokens) - len(turn.branch))
            except OutOfPages:
                if not self._make_way(turn.program) and not self._preempt_for(turn):
                    return
            else:
                if growth.pages or growth.copy:
                    self._effects.append(Grow(turn.arrived.turn, growth.pages, growth.copy, "its pages were full"))
                return

    def _preempt_for(self, turn: Turn) -> bool:
        """Make room by taking somebody out of the batch; False if that was `turn` itself."""
        victims = max(
            self._running.values(), key=lambda other: (self.policy.preempt(self, other.program), other.number)
        )
        if victims is turn and self.running == 1 and self.held == 0:
            self._effects.append(Stop(turn.arrived.turn, f"the pool of {self.room} pages is full with this turn alone"))
            self._cancel(turn.arrived.turn)
            return False
        self._suspend(victims, f"room for {turn.program.id}" if victims is not turn else "no room to grow")
        return victims is not turn

    def _suspend(self, turn: Turn, why: str) -> None:
        assert turn.branch is not None
        turn.branch.close()
        turn.branch = None
        turn.preempted = True
        del self._running[turn.arrived.turn]
        turn.program.running -= 1
        self._effects.append(Preempt(turn.arrived.turn, why))
        self._enqueue(turn)

    # -- holds

    def _retain(self, turn: Turn, branch: Branch, tools: tuple[str, ...]) -> None:
        line = turn.arrived.branch
        retention = self.policy.retain(self, turn.program, tools)
        if retention.seconds <= 0 or not len(branch):
            return
        if line in turn.program.leases:
            self._let_go(turn.program, line, "replaced by a newer pause", stale=True)
        self._effects += self._holds.keep(turn.program, (turn.arrived.turn, line), branch, retention, self.now)

    def _park(self, name: ProgramId) -> None:
        program = self._programs.get(name)
        if program is None:
            return
        retention = self.policy.retain(self, program, ())
        if retention.seconds <= 0:
            self._let_go_all(program, retention.why)
            self._forget_if_idle(program)

    def _let_go_all(self, program: Program, why: str, *, stale: bool = False) -> None:
        for branch in list(program.leases):
            self._let_go(program, branch, why, stale=stale)

    def _let_go(self, program: Program, branch: str, why: str, *, stale: bool = False) -> None:
        self._effects.append(self._holds.end(program, branch, why, stale=stale))
        self._reorder(program)

    def _reorder(self, program: Program) -> None:
        # A turn counted as held may wait behind this: its place is computed anew.
        for name in sorted(program.live):
            if self._turns[name].branch is None:
                self._enqueue(self._turns[name])

    def _expire(self) -> None:
        for program, release in self._holds.expire(self.now):
            self._effects.append(release)
            self._reorder(program)
            self._forget_if_idle(program)
