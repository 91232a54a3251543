"""Cuts a conversation's context to a budget of tokens: computes it whole, has it read, and what stays written."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from typing import cast

from ..scheduler import Place, Placed, Thin, Thinned, Thinning, TurnId, Unmarked
from ..tracing import here
from .engines import Cutting, StepEngine
from .errors import Busy, HostClosed, Refused, Unable
from .loop import Loop
from .remnant import Remnant
from .request import Request
from .sampling import Sampling
from .ticket import Ended


@dataclass(frozen=True, slots=True)
class Line:
    """Whose context it is. What stays is kept under the name of the branch."""

    program: str
    branch: str
    tenant: str
    codec: str


class Thinner:
    """Thins the contexts of one host. Methods return at once with a future; `waited` and `arrived` read it."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def check(self, policy: str, budget: int) -> None:
        """Raises Unable for an engine that cannot, ValueError for an unknown policy or too small a budget."""
        self._cutting(policy, budget)

    def thin(self, line: Line, tokens: tuple[int, ...], *, policy: str, budget: int) -> Future[Remnant]:
        """Cut the context of all tokens but the last to `budget` in each head; what is missing of it is computed.

        What stays is kept like a mark, in place of the one of the branch's name. Raises as `check` does, and out of the
        future: Refused where the pool is too small, Busy where the weights change meanwhile or the turn is aborted.
        """
        turn = Request(
            line.program,
            line.branch,
            tokens[:-1],
            Sampling(max_tokens=1),
            tenant=line.tenant,
            codec=line.codec,
            forced=tokens[-1:],
            place=here(),
        )
        work = _Work(self._loop, turn, self._cutting(policy, budget))
        return self._loop.within(work.done(policy, budget))

    def _cutting(self, policy: str, budget: int) -> Cutting:
        engine = self._loop.engine
        if not engine.can.thin:
            raise Unable(
                f"{engine.name} cannot cut a context to a budget: that takes an embedded model whose layers all see "
                "the whole of their past, without a window"
            )
        if not isinstance(budget, int) or isinstance(budget, bool):
            raise ValueError(f"budget: found {budget!r}; expected a whole number of tokens")
        return cast(StepEngine, engine).cutting(policy, budget)


def waited(future: Future[Remnant]) -> Remnant:
    """What came of it, on this thread."""
    try:
        return future.result()
    except CancelledError as gone:
        raise _closed() from gone


async def arrived(future: Future[Remnant]) -> Remnant:
    """The same in a coroutine. When that is cancelled the work goes on, and what stays is nobody's in the end."""
    try:
        return await asyncio.shield(asyncio.wrap_future(future))
    except asyncio.CancelledError as gone:
        if future.cancelled():
            raise _closed() from gone
        raise


def _closed() -> HostClosed:
    return HostClosed("the host was closed while a context was thinned")


class _Work:
    """One thinning, in the loop."""

    def __init__(self, loop: Loop, turn: Request, cutting: Cutting) -> None:
        self._loop = loop
        self._turn = turn
        self._cutting = cutting
        self._held: list[Thin] = []

    async def done(self, policy: str, budget: int) -> Remnant:
        try:
            return await self._cut(await self._computed(), policy, budget)
        except BaseException:
            for thin in self._held:  # its pages are nobody's any more, whatever went wrong
                self._loop.post(Thinned(thin.turn))
            raise

    async def _computed(self) -> Thin:
        """Have a turn compute the context, and keep what it leaves."""
        reason = ""
        async for chunk in self._loop.submit(replace(self._turn, ending=self._ending)):
            reason = chunk.reason if isinstance(chunk, Ended) else ""
        for thin in self._held:
            if thin.tokens == len(self._turn.tokens):
                return thin
        raise Busy(
            f"the context of {len(self._turn.tokens)} tokens was not computed whole before it could be thinned (its "
            f"turn ended by {reason!r}): try again, with a larger pool if it has no room there"
        )

    def _ending(self, turn: TurnId) -> None:
        self._held += (effect for effect in self._loop.post(Thinning(turn)) if isinstance(effect, Thin))

    async def _cut(self, thin: Thin, policy: str, budget: int) -> Remnant:
        cutting, past = self._cutting, self._turn.tokens
        cutting.read(thin.pages, past)
        while not await self._loop.aside(cutting.step):
            pass
        root = self._loop.root(*self._turn.owner)
        if root != thin.root:
            raise Busy("the weights of the model changed while a context was thinned: thin it again")
        remnant = Remnant(policy, budget, past, tuple(past[at] for at in cutting.kept), cutting.digest)
        self._loop.post(Unmarked((self._turn.branch,)))  # the whole of it is kept no longer
        effects = self._loop.post(Thinned(thin.turn, remnant.root(root), remnant.kept))
        place = next(effect for effect in effects if isinstance(effect, Place))
        if not place.pages:
            raise Refused(f"the context was not thinned: {place.why}. Give the pool more tokens")
        await self._loop.aside(cutting.write, place.pages)
        self._loop.post(Placed(thin.turn, self._turn.branch))
        return remnant
