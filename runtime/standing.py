"""What a session's answers stand on: all of its past, or what a thinning has left of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from ..tracing import names, work_span
from .answer import Answer, Answering
from .errors import ContextLost, Lossy
from .remnant import Remnant
from .thinning import Line, Thinner, arrived, waited

Begin = Callable[[Remnant | None], Answering]
"""Hands a question in that stands on this."""


class Standing:
    """Of one session. What was lost of a thinned context is thinned anew, once for every answer, from all tokens."""

    def __init__(self, thinner: Thinner, line: Line, remnant: Remnant | None = None) -> None:
        self._thinner = thinner
        self._line = line
        self.remnant = remnant
        """What is left; None: nothing was thinned."""

    def thin(self, tokens: tuple[int, ...], policy: str, budget: int) -> int:
        """Cut the context of all tokens but the last; returns how many each head has lost. Raises as `Thinner.thin`."""
        self._thinner.check(policy, budget)
        if len(tokens) - 1 <= budget:
            self.remnant = None
            return 0
        with work_span(names.KV_THIN, {names.KV_TOKENS: len(tokens) - 1, names.KV_WHY: f"{policy}, {budget}"}) as span:
            self.remnant = waited(self._thinned(tokens, policy, budget))
            span.set({names.KV_DROPPED_TOKENS: self.remnant.dropped})
            return self.remnant.dropped

    def follow(self, tokens: tuple[int, ...]) -> None:
        """The conversation is this now. Set back behind the thinned part, or written anew, it stands on all of it."""
        if self.remnant is not None and not self.remnant.behind(tokens):
            self.remnant = None

    def whole(self, what: str) -> None:
        """Raises Lossy for a thinned conversation: whoever gets it could not tell what is missing."""
        if self.remnant is not None:
            raise Lossy(f"this conversation is thinned ({self.remnant!r}) and cannot be {what}: roll back behind that")

    def wait(self, begin: Begin, tokens: tuple[int, ...]) -> Answer:
        """The answer to these tokens, on this thread."""
        try:
            return begin(self.remnant).wait()
        except ContextLost:
            self.remnant = waited(self._anew(tokens))
            return begin(self.remnant).wait()

    async def arrive(self, begin: Begin, tokens: tuple[int, ...]) -> Answer:
        """As `wait`, in this coroutine."""
        try:
            return await begin(self.remnant).arrive()
        except ContextLost:
            self.remnant = await arrived(self._anew(tokens))
            return await begin(self.remnant).arrive()

    def __repr__(self) -> str:
        return "exact" if self.remnant is None else f"lossy: {self.remnant!r}"

    def _anew(self, tokens: tuple[int, ...]) -> Future[Remnant]:
        gone = self.remnant
        assert gone is not None  # only who stands on one can lose it
        return self._thinned(tokens[: len(gone.past) + 1], gone.policy, gone.budget)

    def _thinned(self, tokens: tuple[int, ...], policy: str, budget: int) -> Future[Remnant]:
        return self._thinner.thin(self._line, tokens, policy=policy, budget=budget)
