"""The turns that run, in virtual time: what a step does for each, and how many steps are alike.

It steps as the embedded engine does: who speaks gets a token, prompts share the rest of the step in the order in which
their turns started. Between two decisions all steps are alike but for their contexts, which grow; they are taken at
once. So a token costs nothing, and a page of an answer or a chunk of a prompt a few microseconds: what is said is told
when it has filled its pages or come to its end, and by `tell` to whoever has to know it earlier.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from dataclasses import dataclass, field

from ..batch import Demand, compose
from ..costs import Costs
from ..events import Progress, TurnId

_MANY = 1 << 62


@dataclass(slots=True)
class Running:
    """A turn, from its first start to its end; it outlives a preemption."""

    turn: TurnId
    say: tuple[int, ...]
    out: int
    """Tokens that it has to say."""
    known: int
    """Granules of its context: the prompt, then what was said of the answer."""
    computed: int = 0
    room: int = 0
    found: int = 0
    """Tokens of its context that were there when it was started last."""
    part: int = 0
    """Tokens that are computed of the next granule."""
    spoken: int = 0
    """Tokens that it has said up to step `since`."""
    since: int = 0
    said: int = 0
    """Granules of it that are whole."""
    entered: int = 0
    """The step since which it speaks without a break."""
    base: int = 0
    """Tokens of its context then."""
    number: int = 0
    """Its place in the batch."""
    due: int = 0
    """The step after which it is to be looked at."""
    speaks: bool = False
    rows: int = 0
    """Prompt tokens computed since it was started, for whoever counts what was computed twice."""


@dataclass(frozen=True, slots=True)
class Leap:
    """Steps that are alike: so many, their time in all, and what each computes of prompts."""

    steps: int
    seconds: float
    shares: tuple[tuple[Running, int], ...]


@dataclass(slots=True)
class Landed:
    """What a leap has come to."""

    progress: list[Progress] = field(default_factory=list)
    spoke: list[Running] = field(default_factory=list)
    """These said their first token since they were started."""
    ended: list[Running] = field(default_factory=list)


class Batch:
    """The engine of a simulation. `page` is in granules. `repr` shows who fills and who speaks."""

    def __init__(self, costs: Costs, granule: int, page: int) -> None:
        self._costs = costs
        self._granule = granule
        self._page = page
        self._filling: dict[TurnId, Running] = {}
        self._speaking: dict[TurnId, Running] = {}
        self._due: list[tuple[int, int, Running]] = []  # the step after which a granule has been said
        self._short: dict[TurnId, Running] = {}
        self._steps = 0
        self._seen = 0  # tokens of the contexts of those that speak
        self._count = 0

    def __len__(self) -> int:
        return len(self._filling) + len(self._speaking)

    def start(self, turn: Running, reuse: int, pages: int) -> None:
        """A turn runs from now on, or again."""
        self._count += 1
        turn.computed, turn.part, turn.room, turn.number = reuse, 0, pages * self._page, self._count
        turn.speaks, turn.rows, turn.found = False, 0, reuse * self._granule
        self._filling[turn.turn] = turn
        self._check(turn)

    def grow(self, turn: Running, pages: int) -> None:
        """It has room for more."""
        turn.room += pages * self._page
        self._check(turn)
        if turn.speaks:
            self._next(turn)

    def leave(self, turn: Running) -> None:
        """It runs no more; harmless if it did not."""
        self._filling.pop(turn.turn, None)
        self._short.pop(turn.turn, None)
        if self._speaking.pop(turn.turn, None) is not None:
            self._silence(turn)

    def short(self) -> tuple[TurnId, ...]:
        """Turns that cannot step without more pages, in the order of the batch."""
        return tuple(turn.turn for turn in sorted(self._short.values(), key=lambda turn: turn.number))

    def plan(self, seconds: float | None) -> Leap | None:
        """The next steps: all that are alike and end within so many seconds, one at least; None without turns."""
        if not len(self):
            return None
        shares, steps = self._shares()
        while self._due and not self._current(self._due[0]):
            heapq.heappop(self._due)
        if self._due:
            steps = min(steps, self._due[0][0] - self._steps)
        long = self._long(shares, steps)
        if seconds is not None and long > seconds and steps > 1:
            steps = max(1, bisect_right(range(1, steps + 1), seconds, key=lambda count: self._long(shares, count)))
            long = self._long(shares, steps)
        return Leap(steps, long, shares)

    def tell(self) -> tuple[Progress, ...]:
        """What has been said and not been told: for whoever may take a turn out, and must know what it has."""
        told = Landed()
        for turn in self._speaking.values():
            self._tell(turn, told)
        return tuple(told.progress)

    def land(self, leap: Leap) -> Landed:
        """Take over what the steps did, for turns that are still in the batch."""
        self._steps += leap.steps
        self._seen += leap.steps * len(self._speaking)
        landed = Landed()
        while self._due and self._due[0][0] <= self._steps:
            due = heapq.heappop(self._due)
            if self._current(due):
                self._said(due[2], landed)
        for turn, tokens in leap.shares:
            if self._filling.get(turn.turn) is turn:
                self._filled(turn, tokens * leap.steps, landed)
        return landed

    def __repr__(self) -> str:
        return f"<Batch {len(self._filling)} filling | {len(self._speaking)} speaking | step {self._steps}>"

    # -- planning

    def _shares(self) -> tuple[tuple[tuple[Running, int], ...], int]:
        """What a step computes of prompts, and how many steps do so alike."""
        if not self._filling:
            return (), _MANY
        demands = [Demand(name, self._pending(turn), turn.found) for name, turn in self._filling.items()]
        # A prompt of which one token is left counts as a turn that speaks, as in the engine.
        found = compose(demands, budget=self._costs.chunk, beside=len(self._speaking))
        shares = tuple((self._filling[one.turn], one.tokens) for one in found)
        if len(shares) != 1:
            return shares, 1
        turn, tokens = shares[0]
        # Others may wait for all but a page of what is computed here: the steps around that are taken one by one.
        pending, close = self._pending(turn), self._page * self._granule
        return shares, max(1, min(pending // tokens, -(-(pending - close) // tokens)))

    def _long(self, shares: tuple[tuple[Running, int], ...], steps: int) -> float:
        """How long so many steps take: their prompts' pieces follow on each other, their contexts grow evenly."""
        rows = len(self._speaking)
        seen = steps * self._seen + rows * (steps * (steps - 1) // 2)
        prompts = sum(self._costs.prompt(steps * tokens, self._at(turn)) for turn, tokens in shares)
        return steps * self._costs.decode(rows, 0) + seen * self._costs.seen_s + prompts

    def _at(self, turn: Running) -> int:
        return turn.computed * self._granule + turn.part

    def _pending(self, turn: Running) -> int:
        return turn.known * self._granule - self._at(turn)

    def _current(self, due: tuple[int, int, Running]) -> bool:
        return due[2].speaks and (due[2].due, due[2].number) == due[:2]

    # -- landing

    def _filled(self, turn: Running, tokens: int, landed: Landed) -> None:
        turn.rows += tokens
        whole, turn.part = divmod(turn.part + tokens, self._granule)
        turn.computed += whole
        if turn.computed < turn.known:
            if whole:
                landed.progress.append(Progress(turn.turn, whole))
            return
        del self._filling[turn.turn]
        self._speaking[turn.turn] = turn
        turn.speaks, turn.spoken, turn.since = True, turn.spoken + 1, self._steps
        turn.entered, turn.base = self._steps, turn.known * self._granule
        self._seen += turn.base
        landed.spoke.append(turn)
        self._said(turn, landed, computed=whole)

    def _said(self, turn: Running, landed: Landed, *, computed: int = 0) -> None:
        """Its prompt is read, its answer has filled the room that there is, or it is over."""
        self._tell(turn, landed, computed=computed)
        if turn.spoken >= turn.out:
            landed.ended.append(turn)
            self.leave(turn)
            return
        self._check(turn)
        self._next(turn)

    def _tell(self, turn: Running, landed: Landed, *, computed: int = 0) -> None:
        """Granules that are whole by now; of what was said all but the last one is computed."""
        self._count_spoken(turn)
        whole = len(turn.say) if turn.spoken >= turn.out else turn.spoken // self._granule
        more = turn.say[turn.said : whole]
        if more or computed:
            landed.progress.append(Progress(turn.turn, computed + turn.known - turn.computed, more))
        if len(more) > 1:  # computed after it was said
            landed.progress.append(Progress(turn.turn, len(more) - 1))
        if more:
            turn.said += len(more)
            turn.known += len(more)
            turn.computed = turn.known - 1

    def _next(self, turn: Running) -> None:
        """The step after which it has no room for more, or nothing more to say."""
        granules = turn.said + max(1, turn.room - turn.known + 1)
        tokens = min(granules * self._granule, turn.out)
        turn.due = turn.since + tokens - turn.spoken
        heapq.heappush(self._due, (turn.due, turn.number, turn))

    def _check(self, turn: Running) -> None:
        if turn.known > turn.room:
            self._short[turn.turn] = turn
        else:
            self._short.pop(turn.turn, None)

    def _count_spoken(self, turn: Running) -> None:
        turn.spoken += self._steps - turn.since
        turn.since = self._steps

    def _silence(self, turn: Running) -> None:
        self._count_spoken(turn)
        turn.speaks = False
        self._seen -= turn.base + self._steps - turn.entered
