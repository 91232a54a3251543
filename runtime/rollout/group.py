"""Samples of one prompt: forked where the prompt ends, played turn by turn with tools, broken off and resumed."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeVar, cast

from ...tools import Call
from ..ask import Message
from ..engines import End
from ..errors import BadRollout
from ..ticket import Facts
from .record import ROOT, Piece, Rollout, Sample, Told
from .toolbox import Toolbox

Made = TypeVar("Made")


class Turned(Protocol):
    """What a rollout needs of an answer."""

    @property
    def pieces(self) -> Sequence[Told]: ...
    @property
    def calls(self) -> Sequence[Call]: ...
    @property
    def reason(self) -> End: ...
    @property
    def facts(self) -> Facts: ...


class Talk(Protocol):
    """What a rollout needs of a Session."""

    @property
    def tokens(self) -> tuple[int, ...]: ...
    @property
    def said(self) -> int:
        """Tokens of an answer that was begun and goes on."""
        ...

    @property
    def codec(self) -> str:
        """How its context is stored below the device."""
        ...

    @property
    def mode(self) -> str:
        """How its engine computes."""
        ...

    @property
    def exact(self) -> bool:
        """Whether what is said next stands on all that came before, bit for bit."""
        ...

    def feed(self, tokens: Sequence[int]) -> None: ...
    def read(self, messages: Sequence[Message]) -> None: ...
    async def agenerate(self, max_tokens: int | None = None, *, seed: int | None = None) -> Turned: ...
    def fork(self, n: int = 1) -> Sequence[Talk]: ...
    def rollback(self, to: int) -> object: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Rules:
    """How each sample is played."""

    turns: int = 1
    """Answers a sample may have; what the last one calls is not run."""
    max_tokens: int = 256
    """Tokens a sample may have behind its prompt, results included."""
    toolbox: Toolbox = field(default_factory=Toolbox)
    seed: int | None = None
    """Equal seeds give equal samples; within a group every sample and every turn draws for itself."""
    exact: bool = False
    """Whether a session that is lossy, by its codec or because it was thinned, is refused. Off: its rows are marked."""

    def __post_init__(self) -> None:
        for name in ("turns", "max_tokens"):
            if getattr(self, name) < 1:
                raise BadRollout(f"{name}: found {getattr(self, name)}; expected at least 1")


@dataclass(slots=True)
class Tally:
    """What rollouts cost. Tallies add up."""

    asked: int = 0
    """Tokens of all prompts of all turns, and of the answers: what would be computed if nothing were shared or kept."""
    computed: int = 0
    """Rows that entered the forward pass."""
    stored: int = 0
    """Tokens of the rollouts, each stored once: what must be computed if nothing of it is known."""
    stale: int = 0
    """Reused tokens whose keys and values older weights made."""
    calls: int = 0
    rejected: int = 0
    """Calls that did not fit their tool, and did not run."""
    failed: int = 0
    rewritten: int = 0
    """Samples that ended early because the model's template wrote their past anew instead of going on."""
    speaking_s: float = 0.0
    """Samples waited so long for the model, each for itself."""
    waiting_s: float = 0.0
    """Samples waited so long for their tools, each for itself."""

    @property
    def wait_share(self) -> float:
        """The part of the samples' time that went into waiting for tools."""
        whole = self.speaking_s + self.waiting_s
        return self.waiting_s / whole if whole else 0.0

    def count(self, facts: Facts, seconds: float, *, asked: bool = True) -> None:
        """One answer more; off `asked` for one that only we wanted."""
        self.asked += facts.prompt_tokens + facts.said_tokens if asked else 0
        # The last token that was said enters the forward pass with the next turn, if there is one.
        self.computed += facts.computed_tokens + facts.recomputed_tokens + max(0, facts.said_tokens - 1)
        self.stale += facts.stale_tokens
        self.speaking_s += seconds

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Tally)))


class Group:
    """`n` samples of one prompt. Run it, and run it again if it was broken off; close it, or use it in a `with`.

    The prompt is computed once and forked. When one answer is aborted, no sample begins another turn, so `run` returns
    soon with what was made; the next `run` goes on where each sample stood.
    """

    def __init__(self, session: Talk, prompt: Sequence[Message] | Sequence[int], *, n: int, rules: Rules) -> None:
        """`session` may have read something already.

        Raises BadRollout for an empty prompt or group, for an engine whose products depend on the size of a step, and
        for a lossy session where the rules ask for exactness.
        """
        if n < 1:
            raise BadRollout(f"n: found {n}; expected at least one sample")
        if not prompt:
            raise BadRollout("the prompt is empty: give messages or tokens")
        if session.mode != "exact":
            raise BadRollout(
                f"the engine computes in the mode {session.mode}, in which a token's probability depends on who else "
                "is in its step; expected exact: open its host without a mode"
            )
        if rules.exact and not session.exact:
            raise BadRollout(
                f"the session is lossy, by the codec {session.codec}, or was thinned, and the rules ask for exact "
                "samples: open another one, or leave `exact` out"
            )
        self.tally = Tally()
        self._session = session
        self._prompt = prompt
        self._count = n
        self._rules = rules
        self._seed = secrets.randbits(62) if rules.seed is None else rules.seed
        self._root: tuple[int, ...] = ()
        self._lines: list[_Line] = []
        self._broken = False

    @property
    def finished(self) -> bool:
        """Nothing is left to be said."""
        return bool(self._lines) and all(line.over for line in self._lines)

    async def run(self) -> Rollout:
        """Play until every sample is finished, or one is broken off."""
        self._broken = False
        if not self._lines:
            await self._begin()
        await together(self._play(line) for line in self._lines)
        made = self.rollout()
        self.tally.stored = made.tokens
        return made

    def stop(self) -> None:
        """No sample begins another turn; those that run end, unless the host aborts them too."""
        self._broken = True

    def rollout(self) -> Rollout:
        """What was made so far; samples that are not finished have no reason to end, or `abort`."""
        rollout = Rollout(self._root, mode=self._session.mode)
        for line in self._lines:
            node = ROOT
            for piece, reason, exact in line.steps:
                node = rollout.add(node, piece, reason=reason, exact=exact)
        return rollout

    def close(self) -> None:
        """Let the forks go; the session itself stays the caller's."""
        for line in self._lines:
            line.session.close()

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        over = sum(line.over for line in self._lines)
        return f"<Group {over} of {self._count} samples finished>"

    async def _begin(self) -> None:
        """Compute the prompt by itself, so that forks which begin at once find it there, and fork it."""
        if not self._root:  # else it was read before, and computing it went wrong
            self._read()
        if self._count > 1:
            answer = await self._timed(self._session.agenerate(1, seed=self._seed), asked=False)
            self._broken = answer.reason == "abort"
            self._session.rollback(len(self._root))
        self._lines = [_Line(session, number) for number, session in enumerate(self._session.fork(self._count))]

    def _read(self) -> None:
        if isinstance(self._prompt[0], Message):
            self._session.read(cast(Sequence[Message], self._prompt))
        else:
            self._session.feed(cast(Sequence[int], self._prompt))
        self._root = self._session.tokens

    async def _play(self, line: _Line) -> None:
        while not line.over and not self._broken:
            if line.calls:
                await self._work(line)
            else:
                await self._speak(line)

    async def _speak(self, line: _Line) -> None:
        """The next answer of a sample, or the rest of one that was broken off, which keeps the seed it has."""
        rules, session = self._rules, line.session
        seed = None if session.said else seed_for(self._seed, line.number, line.turn)
        answer = await self._timed(session.agenerate(rules.max_tokens - line.spent, seed=seed))
        said, exact = Piece.said(answer.pieces), answer.facts.exact
        line.add(said, "abort" if answer.reason == "abort" else None, exact=exact)
        if answer.reason == "abort":
            self._broken = True
            return
        line.turn += 1
        if answer.calls and answer.reason == "stop" and line.turn < rules.turns:
            line.calls = tuple(answer.calls)
        else:
            line.end(answer.reason)

    async def _work(self, line: _Line) -> None:
        """Run what the last answer calls, and read the results.

        The sample ends where they leave no room for an answer, and where the template writes its past anew: a trainer
        would be shown a past in which these answers were never given.
        """
        results = await asyncio.gather(*(self._rules.toolbox.run(call) for call in line.calls))
        line.calls = ()
        self.tally.calls += len(results)
        self.tally.rejected += sum(result.fate == "rejected" for result in results)
        self.tally.failed += sum(result.fate == "failed" for result in results)
        self.tally.waiting_s += max(result.seconds for result in results)
        before = line.session.tokens
        line.session.read([result.message for result in results])
        added = line.session.tokens[len(before) :]
        if line.session.tokens[: len(before)] != before:
            self.tally.rewritten += 1
            line.end("stop")
        elif line.spent + len(added) >= self._rules.max_tokens:
            line.end("length")
        else:
            line.add(Piece.read(added), None)

    async def _timed(self, answering: Awaitable[Turned], *, asked: bool = True) -> Turned:
        clock = asyncio.get_running_loop().time
        begun = clock()
        answer = await answering
        self.tally.count(answer.facts, clock() - begun, asked=asked)
        return answer


class _Line:
    """One sample on its way."""

    __slots__ = ("calls", "number", "over", "session", "spent", "steps", "turn")

    def __init__(self, session: Talk, number: int) -> None:
        self.session = session
        self.number = number
        self.turn = 0
        self.spent = 0
        self.over = False
        self.calls: tuple[Call, ...] = ()
        self.steps: list[tuple[Piece, End | None, bool]] = []

    def add(self, piece: Piece, reason: End | None, *, exact: bool = True) -> None:
        self.steps.append((piece, reason, exact))
        self.spent += len(piece)

    def end(self, reason: End) -> None:
        piece, _, exact = self.steps[-1]
        self.steps[-1] = (piece, reason, exact)
        self.over = True


async def rollout(
    session: Talk,
    prompt: Sequence[Message] | Sequence[int],
    *,
    n: int = 1,
    rules: Rules | None = None,
    reward: Callable[[Sample], float] | None = None,
) -> Rollout:
    """Samples of one prompt, scored by `reward` if they are finished; see Group for one that can be resumed."""
    with Group(session, prompt, n=n, rules=rules or Rules()) as group:
        made = await group.run()
    for leaf in made.leaves() if reward is not None else ():
        sample = made.sample(leaf)
        if sample.finished and reward is not None:
            made.score(leaf, reward(sample))
    return made


async def together(coroutines: Iterable[Coroutine[Any, Any, Made]]) -> list[Made]:
    """What they return, in their order; the first error ends all of them, and is raised when they have ended."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def seed_for(seed: int, *place: int) -> int:
    """A seed of its own for each place: the same position of two answers must not draw alike."""
    digest = hashlib.blake2b(" ".join(map(str, (seed, *place))).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 2
