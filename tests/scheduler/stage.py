"""A kernel with a clock, for tests: a turn's life in single moves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sostenuto.kvstore import Ledger, root
from sostenuto.scheduler import (
    Arrived,
    Effect,
    Event,
    Kernel,
    Paused,
    Policy,
    ProgramId,
    Progress,
    Start,
    Stepped,
    TurnId,
    named,
)
from sostenuto.tests.scheduler.steady import STEADY

PAGE = 4
ROOT = root(model="m").hex()


class Stage:
    """A kernel with a clock, and the few moves that every test is made of."""

    def __init__(self, policy: str | Policy = STEADY, *, room: int = 8, **rest: Any) -> None:
        chosen = named(policy) if isinstance(policy, str) else policy
        self.kernel = Kernel(Ledger(room, PAGE, rank=chosen.evict), chosen, **rest)
        self.now = 0.0
        self.log: list[Effect] = []
        self.prompts: dict[str, list[int]] = {}

    def tell(self, event: Event, *, after: float = 0.0) -> list[Effect]:
        self.now += after
        effects = self.kernel.handle(event, self.now)
        self.kernel.books.check()
        self.log += effects
        return effects

    def arrive(self, turn: str, tokens: Iterable[int], *, program: str = "", branch: str = "main") -> list[Effect]:
        name, told = ProgramId(program or turn), tuple(tokens)
        self.prompts[turn] = list(told)
        return self.tell(Arrived(TurnId(turn), name, branch, ROOT, told, 16))

    def compute(self, turn: str, count: int, *said: int) -> list[Effect]:
        return self.tell(Stepped((Progress(TurnId(turn), count, said),)))

    def run(self, turn: str, tokens: Iterable[int], *, program: str = "", branch: str = "main") -> Start:
        """A turn from its arrival to the computation of its prompt."""
        (start,) = [one for one in self.arrive(turn, tokens, program=program, branch=branch) if isinstance(one, Start)]
        self.compute(turn, len(self.prompts[turn]) - start.reuse)
        return start

    def pause(self, turn: str, *tools: str) -> list[Effect]:
        return self.tell(Paused(TurnId(turn), tools or ("search",)))

    def starts(self) -> list[str]:
        return [effect.turn for effect in self.log if isinstance(effect, Start)]
