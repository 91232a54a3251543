"""What an engine must do, and what passes between it and the loop.

An engine here runs on the step clock: the loop tells it which turns run and on which pages, asks it to plan a step,
lets it run the step on the compute thread, and reports what came of it to the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ...scheduler import Grow, Start, TurnId
from ...tools import Grammar
from ..sampling import Sampling

End = Literal["stop", "length"]
"""Why an answer ended: the model or a stop string said so, or there was no more room or no more to be said."""


@dataclass(slots=True)
class Job:
    """A turn as the engine sees it. It outlives a preemption: what was said is not said again."""

    turn: TurnId
    tokens: list[int]
    """The prompt, then what was said; the first `computed` have keys and values in `pages`."""
    prompt: int
    sampling: Sampling
    grammar: Grammar | None = None
    forced: tuple[int, ...] | None = None
    """Say these instead of sampling: a recorded answer is replayed."""
    pages: list[int] = field(default_factory=list)
    computed: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """What a step did for one turn."""

    turn: TurnId
    computed: int
    """Rows of this turn that entered the forward pass."""
    token: int | None = None
    text: str = ""
    """Text that became final with this token; a token may end inside a character and a stop string may be near."""
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()
    end: End | None = None


class Engine(Protocol):
    """What the loop needs of an embedded engine. All but `run` are called on the loop's own thread."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str:
        """Names everything that makes keys and values differ: model, weights, dtype."""
        ...

    @property
    def page(self) -> int: ...
    @property
    def room(self) -> int:
        """Pages of the pool."""
        ...

    @property
    def eos(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
        ...

    @property
    def vocab(self) -> int:
        """Rows of logits are so long."""
        ...

    @property
    def longest(self) -> int:
        """The longest context the model takes, in tokens."""
        ...

    @property
    def rows(self) -> int:
        """Tokens that have entered the forward pass so far, counted where they enter."""
        ...

    @property
    def tokenizer(self) -> Any: ...
    def start(self, job: Job, effect: Start) -> None:
        """Put a turn into the batch."""
        ...

    def grow(self, effect: Grow) -> None: ...
    def suspend(self, turn: TurnId) -> None:
        """Take a turn out of the batch; it may be started again and goes on where it stood."""
        ...

    def drop(self, turn: TurnId) -> None:
        """Forget a turn; unknown ones are ignored."""
        ...

    def short(self) -> tuple[TurnId, ...]:
        """Turns of the batch whose pages have no room for what they have to compute."""
        ...

    def plan(self) -> object | None:
        """The next step, or None when there is nothing to do."""
        ...

    def run(self, step: Any) -> Sequence[Said]:
        """Compute a planned step; called on the compute thread."""
        ...

    def settle(self, said: Sequence[Said]) -> None:
        """Take over what a step did."""
        ...
