"""The same kernel under a virtual clock: programs come, wait, run, pause for their tools and come back.

Nothing is decided here. Whatever happens is an event for the kernel, and its effects are carried out on turns that
take the time that a device would take. The order of events is that of the loop: a step is composed, computed and
settled; whoever comes meanwhile is heard at once and joins the next.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from ...kvstore import root
from ..costs import Costs
from ..effects import CancelMove, Effect, Grow, Hold, Move, Preempt, Refuse, Release, Start, Stop, Wake
from ..errors import Stalled
from ..events import (
    DEVICE,
    Arrived,
    Cancelled,
    Closed,
    Event,
    Finished,
    Moved,
    NeedRoom,
    Paused,
    Stepped,
    Tick,
    ToolEnded,
    ToolStarted,
    TurnId,
)
from ..kernel import Kernel
from ..policies import Future
from .batch import Batch, Leap, Running
from .line import Line
from .tally import Tally
from .workload import Session, Workload

ROOT = root(model="simulated").hex()
LATE_S = 1e-3
"""How much after its time the loop's alarm rings."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Who comes, and on what it runs."""

    costs: Costs
    users: int | None = None
    """How many sessions go on at once, where they do not begin at times of their own."""
    workers: int | None = None
    """How many tools run at once; None: as many as are called."""
    future: Future | None = None
    """Where it is written what is to come, for an oracle."""


Watcher = Callable[[Event, float, Sequence[Effect]], object]


def simulate(
    kernel: Kernel,
    workload: Workload,
    conditions: Conditions,
    *,
    tally: Tally | None = None,
    watch: Watcher | None = None,
) -> Tally:
    """Run all sessions of a workload to their ends; what came of it. `watch` is told every event and its effects.

    Raises Stalled if turns wait and nothing is left to happen.
    """
    run = _Run(kernel, workload, conditions, tally or Tally(workload.granule), watch)
    run.go()
    return run.tally


class _Run:
    def __init__(
        self, kernel: Kernel, workload: Workload, conditions: Conditions, tally: Tally, watch: Watcher | None
    ) -> None:
        self.tally = tally
        self._kernel, self._workload, self._conditions, self._watch = kernel, workload, conditions, watch
        self._now = 0.0
        self._queue: list[tuple[float, int, int, Callable[[Any], object], Any]] = []
        self._count = 0
        self._calls = 0
        self._turns: dict[TurnId, Line] = {}
        self._batch = Batch(conditions.costs, workload.granule, kernel.ledger.page)
        self._leap: Leap | None = None
        self._ending: Line | None = None
        self._alarm: float | None = None
        self._sessions: Iterator[Session] = iter(workload.sessions)
        self._free_workers = conditions.workers
        self._tools: deque[tuple[Line, str, str, float]] = deque()
        self._moving: dict[str, float] = {}
        self._out: dict[int, Move] = {}
        self._cancelled: set[int] = set()

    def go(self) -> None:
        first = 1 if self._workload.timed else (self._conditions.users or 1)
        for _ in range(first):
            self._begin_next()
        while True:
            # Whatever happens at one moment is heard before a step begins.
            if self._leap is None and not (self._queue and self._queue[0][0] <= self._now):
                self._step()
            if not self._queue:
                break
            at, _, _, what, about = heapq.heappop(self._queue)
            self._now = max(self._now, at)
            what(about)
        if self._turns or self._tools:
            raise Stalled(
                f"under {self._kernel.policy.name} {len(self._turns)} turns wait and nothing is left to happen: does a "
                f"policy change the world, which it may only read? {self._kernel!r}"
            )
        self.tally.over(self._now)

    # -- time

    def _at(self, when: float, what: Callable[[Any], object], about: Any = None, *, rank: int = 1) -> None:
        self._count += 1
        heapq.heappush(self._queue, (when, rank, self._count, what, about))

    def _step(self) -> None:
        """Begin the next steps, as many as are alike before something happens."""
        while short := self._batch.short():
            if self._kernel.ledger.available < 2 * len(short) and (told := self._batch.tell()):
                self._post(Stepped(told))  # somebody may have to leave the batch
                continue
            self._post(NeedRoom(short))
            if self._batch.short() == short:
                raise AssertionError(f"the kernel found no room for {short} and took nobody out: {self._kernel!r}")
        leap = self._batch.plan(self._queue[0][0] - self._now if self._queue else None)
        if leap is not None:
            self._leap = leap
            self._at(self._now + leap.seconds, self._land, leap, rank=0)

    def _land(self, leap: Leap) -> None:
        self._leap = None
        self.tally.busy += leap.seconds
        landed = self._batch.land(leap)
        for turn in landed.spoke:
            self.tally.spoke(self._turns[turn.turn], self._now)
        if landed.progress:
            self._post(Stepped(tuple(landed.progress)))
        for turn in landed.ended:
            if turn.turn in self._turns:
                self._over(turn.turn)

    def _ring(self, _: None) -> None:
        self._alarm = None
        self._post(Tick())
        self._set_alarm()

    def _set_alarm(self) -> None:
        soonest = self._kernel.soonest
        if soonest is not None and (self._alarm is None or soonest < self._alarm):
            self._alarm = soonest
            self._at(max(soonest, self._now) + LATE_S, self._ring_at, soonest)

    def _ring_at(self, alarm: float) -> None:
        if alarm == self._alarm:
            self._ring(None)

    # -- programs

    def _begin_next(self) -> None:
        session = next(self._sessions, None)
        if session is None:
            return
        self.tally.sessions += 1
        if self._workload.timed:
            self._at(session.at, self._begin, session)
        else:
            self._at(max(self._now, session.at), self._begin, session)

    def _begin(self, session: Session) -> None:
        if self._workload.timed:
            self._begin_next()
        line = Line(session, self._workload.granule)
        line.begin(self._now, self._conditions.costs)
        self._call(line)

    def _call(self, line: Line) -> None:
        """The next call of a line of conversation."""
        self._calls += 1
        turn = TurnId(f"t{self._calls}")
        call = line.call
        if (future := self._conditions.future) is not None:
            future.pauses[line.program] = call.pause if call.tools else inf
            future.left[line.program] = line.left
        prompt = line.prompt()
        line.running = Running(turn, call.say, call.out, len(prompt))
        line.arrived = self._now
        self._turns[turn] = line
        self.tally.came(line, self._now)
        self._post(Arrived(turn, line.program, "main", ROOT, prompt, len(call.say)))

    def _over(self, name: TurnId) -> None:
        """A turn has said all: its program pauses for its tools, or its job is done."""
        line = self._turns.pop(name)
        self.tally.ended(line, self._now)
        call = line.call
        line.said()
        if call.tools and line.more:
            self._ending = line
            self._post(Paused(name, call.tools))
            self._ending = None
            line.tools_out = len(call.tools)
            for number, tool in enumerate(call.tools):
                self._tools.append((line, tool, f"{name}.{number}", call.pause))
            self._work()
            return
        self._post(Finished(name))
        self._post(Closed(line.program))
        self.tally.done(line, self._now)
        self._rest(line, call.pause)

    def _rest(self, line: Line, pause: float) -> None:
        """A person reads the answer, and goes on, or leaves."""
        if line.more:
            self._at(self._now + pause, self._again, line)
        elif not self._workload.timed:
            self._begin_next()

    def _again(self, line: Line) -> None:
        line.begin(self._now, self._conditions.costs)
        self._call(line)

    # -- tools

    def _work(self) -> None:
        while self._tools and self._free_workers != 0:
            line, tool, call, pause = self._tools.popleft()
            if self._free_workers is not None:
                self._free_workers -= 1
            self._post(ToolStarted(line.program, tool, call))
            self._at(self._now + pause, self._back, (line, tool, call))

    def _back(self, about: tuple[Line, str, str]) -> None:
        line, tool, call = about
        if self._free_workers is not None:
            self._free_workers += 1
        self._post(ToolEnded(line.program, tool, call))
        line.tools_out -= 1
        if not line.tools_out:
            self._call(line)
        self._work()

    # -- effects

    def _post(self, event: Event) -> list[Effect]:
        effects = self._kernel.handle(event, self._now)
        if self._watch is not None:
            self._watch(event, self._now, effects)
        self.tally.heard(self._kernel.books, self._now)
        last = []
        for effect in effects:
            if isinstance(effect, Stop | Refuse):
                last.append(effect)  # what ends a turn posts an event of its own
            else:
                self._carry(effect)
        for effect in last:
            self._end(effect)
        return effects

    def _carry(self, effect: Effect) -> None:
        match effect:
            case Start(turn=name, reuse=reuse, pages=pages):
                line = self._turns[name]
                self.tally.started(line, effect, self._now)
                self._batch.start(line.running, reuse, len(pages))
            case Grow(turn=name, pages=pages):
                self._batch.grow(self._turns[name].running, len(pages))
            case Preempt(turn=name):
                line = self._turns[name]
                self._batch.leave(line.running)
                self.tally.preempted(line, self._now)
            case Hold():
                self.tally.held(effect.program, self._now)
            case Release():
                self.tally.released(effect.program, self._now)
            case Wake():
                self._set_alarm()
            case Move():
                self._move(effect)
            case CancelMove(id=number):
                self._cancelled.add(number)

    def _end(self, effect: Stop | Refuse) -> None:
        line = self._turns[effect.turn]
        self._batch.leave(line.running)
        if isinstance(effect, Stop):
            self.tally.cut += 1
            self._over(effect.turn)
            return
        del self._turns[effect.turn]
        self.tally.refused(line, effect, self._now)
        self._post(Cancelled(effect.turn))
        self._post(Closed(line.program, "failed"))
        line.skip()  # nobody goes on with a job of which a call was refused
        self._rest(line, 0.0)

    # -- moves

    def _move(self, move: Move) -> None:
        """Tiers carry out one move after the other."""
        tier = move.target if move.source == DEVICE else move.source
        tokens = sum(len(block.tokens) for block in move.blocks) * self._workload.granule
        begun = max(self._now, self._moving.get(tier, 0.0))
        costs = self._conditions.costs
        self._moving[tier] = begun + (costs.fetch if move.target == DEVICE else costs.store)(tier, tokens)
        line = self._ending if move.turn is None else self._turns[move.turn]
        self.tally.moved(line, tokens, self._now)
        self._out[move.id] = move
        self._at(self._moving[tier], self._moved, move)

    def _moved(self, move: Move) -> None:
        del self._out[move.id]
        done = () if move.id in self._cancelled else tuple(block.name for block in move.blocks)
        self._cancelled.discard(move.id)
        self._post(Moved(move.id, done))
