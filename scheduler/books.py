"""What the kernel knows: programs, turns, who runs, and the pages under them. Policies see it as their world."""

from __future__ import annotations

from collections.abc import Mapping

from ..kvstore import Ledger, PageId, holdings
from .events import ProgramId, TurnId
from .moves import Moves
from .turn import Turn
from .world import Program


class Books:
    """Kept by the kernel alone, read by everybody. `repr` shows waiting, running and the ledger in one line."""

    def __init__(self, ledger: Ledger, moves: Moves, *, grows: bool = True) -> None:
        self.ledger = ledger
        self.moves = moves
        self.grows = grows
        self.now = 0.0
        self.turns: dict[TurnId, Turn] = {}
        self.batch: dict[TurnId, Turn] = {}
        self.thinning: dict[TurnId, tuple[PageId, ...]] = {}
        """The pages that are held because what a turn has left is being thinned."""
        self._programs: dict[ProgramId, Program] = {}
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
            program = self._programs[name] = Program(name, self.now, self.number())
        return program

    def forget(self, program: Program) -> None:
        """A program is over."""
        self._programs.pop(program.id, None)

    def forget_if_idle(self, program: Program) -> None:
        """A program that holds nothing and runs nothing is known again when its next turn comes.

        One that never says goodbye must not stay in the books for ever. It keeps its place as long as it holds or its
        tools run.
        """
        if not (program.live or program.leases or program.tools):
            self.forget(program)

    def enter(self, turn: Turn) -> None:
        """A turn has arrived."""
        self.turns[turn.arrived.turn] = turn
        turn.program.live.add(turn.arrived.turn)

    def leave(self, name: TurnId) -> Turn | None:
        """A turn is gone; None for one that is not known."""
        turn = self.turns.pop(name, None)
        if turn is not None:
            turn.program.live.discard(name)
            self.unbatch(turn)
        return turn

    def run(self, turn: Turn) -> None:
        """A turn has begun to run."""
        self.batch[turn.arrived.turn] = turn
        turn.program.running += 1

    def unbatch(self, turn: Turn) -> None:
        """It runs no more; harmless for one that does not run."""
        if self.batch.pop(turn.arrived.turn, None) is not None:
            turn.program.running -= 1

    def check(self) -> None:
        """Raise BrokenBooks unless the ledger's invariants hold for all who hold pages."""
        contexts = (turn.branch for turn in self.turns.values() if turn.branch is not None)
        branches = (branch for context in contexts for branch in context.parts)
        self.ledger.check((*holdings(branches), *self.moves.pages, *self.thinning.values()))

    def __repr__(self) -> str:
        return f"{self.waiting} waiting | {self.running} running | {self.ledger!r}"
