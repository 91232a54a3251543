"""What the kernel knows: programs, turns, who runs, and the pages under them. Policies see it as their world."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from ..kvstore import Ledger, PageId, holdings
from .chronicle import Chronicle
from .costs import Costs
from .events import ProgramId, TurnId
from .forecast import Forecasts
from .meters import Meters
from .moves import Moves
from .setting import Setting
from .turn import Turn
from .world import Pause, Program

RESTING = 65_536
"""Programs that hold nothing, run nothing and wait for tools: so many keep their place."""
REST_S = 3600.0
"""And for so long."""


class Books:
    """Kept by the kernel alone, read by everybody. `repr` shows waiting, running and the ledger in one line."""

    def __init__(self, ledger: Ledger, moves: Moves, setting: Setting, *, grows: bool = True) -> None:
        self.ledger = ledger
        self.setting = setting
        self.chronicle = Chronicle(setting, lambda tokens: self.pages(0, tokens))
        self.moves = moves
        self.grows = grows
        self.now = 0.0
        self.turns: dict[TurnId, Turn] = {}
        self.batch: dict[TurnId, Turn] = {}
        self.making: dict[TurnId, Turn] = {}
        """Those of the batch that have more than a page to compute: others may wait for it."""
        self.thinning: dict[TurnId, tuple[PageId, ...]] = {}
        """The pages that are held because what a turn has left is being thinned."""
        self.holding = 0
        """Programs that hold something."""
        self.changes = 0
        """Goes up with whatever may let somebody start that could not, but for pages that become available."""
        self._programs: dict[ProgramId, Program] = {}
        self._resting: OrderedDict[ProgramId, tuple[Program, float]] = OrderedDict()
        self._active: set[ProgramId] = set()
        self._count = 0

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
    def tiers(self) -> tuple[str, ...]:
        return self.moves.elsewhere.tiers

    @property
    def running(self) -> int:
        return len(self.batch)

    @property
    def waiting(self) -> int:
        """Turns that have arrived and do not run."""
        return len(self.turns) - len(self.batch)

    @property
    def programs(self) -> Mapping[ProgramId, Program]:
        return self._programs

    @property
    def active(self) -> int:
        """As World says."""
        return len(self._active)

    @property
    def seen(self) -> int:
        return self.chronicle.seen

    @property
    def pressure(self) -> float:
        return self.chronicle.demand / self.ledger.room

    @property
    def committed(self) -> int:
        return self.chronicle.demand - self.chronicle.fresh

    @property
    def acting(self) -> float:
        return self.chronicle.acting.at(self.now)

    @property
    def calls(self) -> int:
        return self.chronicle.calls

    @property
    def workers(self) -> int | None:
        return self.setting.workers

    @property
    def window(self) -> float:
        return self.chronicle.window

    @property
    def costs(self) -> Costs:
        return self.setting.costs

    @property
    def forecasts(self) -> Forecasts:
        return self.setting.forecasts

    @property
    def meters(self) -> Meters:
        return self.chronicle.meters

    def lead(self, tenant: str) -> float:
        return self.chronicle.lead(tenant)

    @property
    def promised(self) -> int:
        """Pages that those who run still want for what they know, and one more for each of their groups of layers.

        Constant time where turns have pages for all that they know; else a step for each that runs.
        """
        groups = self.ledger.groups
        if groups.plain:
            return self.running
        running = ((turn.branch, len(turn.tokens)) for turn in self.batch.values())
        return sum(branch.owes(whole) + len(groups) for branch, whole in running if branch is not None)

    def pages(self, known: int, whole: int) -> int:
        """Pages that a context wants at most to grow from so many tokens to so many."""
        return self.ledger.groups.peak(known, whole, self.page)

    def growth(self, tokens: int, more: float) -> float:
        """As World says."""
        return self.ledger.groups.growth(tokens, more, self.page)

    def number(self) -> int:
        """The next in the order of arrival, of programs and turns alike."""
        self._count += 1
        return self._count

    def program(self, name: ProgramId) -> Program:
        """A program by its id; a new one if it is not known."""
        program = self._programs.get(name)
        if program is None:
            rested = self._resting.pop(name, None)
            program = Program(name, self.now, self.number()) if rested is None else rested[0]
            self._programs[name] = program
        return program

    def resting(self, name: ProgramId) -> Program | None:
        """A program that holds and runs nothing, and keeps its place because its tools are out."""
        rested = self._resting.get(name)
        return None if rested is None else rested[0]

    def forget(self, program: Program) -> None:
        """A program is over."""
        self.chronicle.over(program, self.now)
        self._programs.pop(program.id, None)
        self._resting.pop(program.id, None)
        self._active.discard(program.id)
        self.changes += 1

    def forget_if_idle(self, program: Program) -> None:
        """A program that holds nothing and runs nothing is known again when its next turn comes.

        One that never says goodbye must not stay in the books for ever. It keeps its place as long as it holds or its
        tools run; where it waits for tools of which nobody says that they do, for a while.
        """
        if program.live or program.leases or program.tools:
            return
        if not program.pauses:
            self.forget(program)
            return
        self._programs.pop(program.id, None)
        self._resting[program.id] = (program, self.now)
        while self._resting:
            first, since = next(iter(self._resting.values()))
            if len(self._resting) <= RESTING and since + REST_S > self.now:
                break
            self.forget(first)

    def pause(self, turn: Turn, tools: tuple[str, ...], shape: str, tokens: int) -> Pause:
        """A turn ended by calling tools, and left a context of so many tokens."""
        pause = Pause(turn.arrived.branch, tools, self.now, tokens, shape)
        self.chronicle.paused(turn, pause)
        return pause

    def enter(self, turn: Turn) -> None:
        """A turn has arrived."""
        self.turns[turn.arrived.turn] = turn
        self.chronicle.entered(turn)
        turn.program.live.add(turn.arrived.turn)

    def leave(self, name: TurnId) -> Turn | None:
        """A turn is gone; None for one that is not known."""
        turn = self.turns.pop(name, None)
        if turn is not None:
            turn.program.live.discard(name)
            self.unbatch(turn)
            self.chronicle.left(turn)
            self.changes += 1
        return turn

    def run(self, turn: Turn, reuse: int) -> None:
        """A turn has begun to run, on so many tokens that were computed before."""
        self.batch[turn.arrived.turn] = turn
        self.catch_up(turn)
        turn.program.running += 1
        self.chronicle.began(turn, reuse, self.now)
        self._active.add(turn.program.id)
        self.changes += 1

    def catch_up(self, turn: Turn) -> None:
        """What a running turn has still to compute is another number now."""
        if turn.missing > self.page:
            self.making[turn.arrived.turn] = turn
        else:
            self.making.pop(turn.arrived.turn, None)

    def unbatch(self, turn: Turn) -> None:
        """It runs no more; harmless for one that does not run."""
        self.making.pop(turn.arrived.turn, None)
        if self.batch.pop(turn.arrived.turn, None) is not None:
            turn.program.running -= 1
            self.chronicle.stopped(turn, self.now)
            self.changes += 1

    def check(self) -> None:
        """Raise BrokenBooks unless the ledger's invariants hold for all who hold pages."""
        contexts = (turn.branch for turn in self.turns.values() if turn.branch is not None)
        branches = (branch for context in contexts for branch in context.parts)
        self.ledger.check((*holdings(branches), *self.moves.pages, *self.thinning.values()))

    def __repr__(self) -> str:
        return f"{self.waiting} waiting | {self.running} running | {self.ledger!r}"
