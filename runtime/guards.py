"""Before the model and after it: how much a tenant may ask, what may be asked and said, and what was said before."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ..tools.limits import Bucket
from ..tools.patterns import compiled, reach, why_unsafe
from .ask import Ask
from .engines import Watch
from .errors import BadMessage, Blocked, Limited
from .execute.clock import Clock
from .said_before import SaidBefore, key_of
from .ticket import Chunk, Ended, Piece, Ticket

Side = Literal["question", "answer"]
WINDOW = 4_000
"""Characters of a text that a classifier is shown at once; windows overlap by half."""


class Classifier(Protocol):
    """Judges text. One is shared by all turns of a host, and asked on many threads."""

    def judge(self, text: str, side: Side) -> str | None:
        """Why this may not be asked, or said; None if it may."""
        ...


class WordRules:
    """A classifier that knows nothing but patterns: it finds words, and understands none of them.

    It stops what is spelled as it was foreseen, such as the form of a secret, and nothing else. Patterns are regular
    expressions as JSON Schema has them, and case counts; ValueError for one whose matching may explode.
    """

    def __init__(self, question: Sequence[str] = (), answer: Sequence[str] = ()) -> None:
        self._rules: dict[Side, list[tuple[str, re.Pattern[str]]]] = {
            "question": [(rule, _safe(rule)) for rule in question],
            "answer": [(rule, _safe(rule)) for rule in answer],
        }

    def judge(self, text: str, side: Side) -> str | None:
        for number, (_, pattern) in enumerate(self._rules[side], 1):
            if pattern.search(text):
                return f"rule {number} for {side}s"
        return None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a question may hold. None is no bound."""

    messages: int | None = None
    characters: int | None = None
    """Of all its messages together."""
    tools: int | None = None
    max_tokens: int | None = None

    def check(self, ask: Ask) -> None:
        """Raises BadMessage, which says what was found."""
        size = sum(len(message.text) for message in ask.messages)
        for name, found, most in (
            ("messages", len(ask.messages), self.messages),
            ("messages: characters", size, self.characters),
            ("tools", len(ask.tools), self.tools),
            ("max_tokens", ask.sampling.max_tokens, self.max_tokens),
        ):
            if most is not None and found > most:
                raise BadMessage(f"{name}: found {found}; at most {most} are let through here: ask for less")


@dataclass(frozen=True, slots=True)
class Rate:
    """Questions of one tenant: so many a second in the long run, and so many together before that binds."""

    a_second: float
    burst: int = 10

    def __post_init__(self) -> None:
        if not self.a_second > 0 or self.burst < 1:
            raise ValueError(f"found {self.a_second} a second and a burst of {self.burst}; expected more than 0, 1")


@dataclass(frozen=True, slots=True)
class Guarded:
    """A question that was let through."""

    hears: Callable[[Chunk], object]
    """To be called with each chunk of the answer before anybody else hears of it."""
    kept: Ticket | None = None
    """The answer, if the very same question was answered before."""


class Guards:
    """What stands before a model and behind it; without anything said, nothing does."""

    def __init__(
        self,
        *,
        rate: Rate | None = None,
        rates: Mapping[str, Rate] | None = None,
        bounds: Bounds | None = None,
        classifiers: Sequence[Classifier] = (),
        watches: Sequence[Watch] = (),
        keep: int = 0,
        clock: Clock | None = None,
    ) -> None:
        """`rate` is each tenant's, `rates` that of some by name. `watches` see logits, where an engine shows them.

        `keep` answers are kept for each tenant, and given to the very same question once more, if it says how to draw
        (temperature 0 or a seed) and offers no tools. Off unless said.
        """
        self.watches = tuple(watches)
        self._rate, self._rates = rate, dict(rates or {})
        self._bounds = bounds or Bounds()
        self._classifiers = tuple(classifiers)
        self._before = SaidBefore(keep)
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._buckets: dict[str, Bucket] = {}

    def admit(self, ask: Ask, tokens: Sequence[int], made_with: Callable[[], str], *, fresh: bool) -> Guarded:
        """Raises Limited, BadMessage, Blocked. `fresh`: the whole answer is the model's own, and wanted from the start.

        The rate comes first, so that trying what is blocked is not for free.
        """
        self._take(ask.tenant)
        self._bounds.check(ask)
        for message in ask.messages if self._classifiers else ():
            self._judge(message.text, "question")
        key = key_of(ask, tokens, made_with) if fresh and self._before.room else None
        if key is not None and (kept := self._before.look(ask.tenant, key)) is not None:
            return Guarded(lambda chunk: None, kept)
        return Guarded(_Hearing(self, ask.tenant, key).hear)

    def keep(self, tenant: str, key: str, chunks: Sequence[Chunk]) -> None:
        """An answer that came to its end."""
        self._before.keep(tenant, key, chunks)

    def said(self, text: str) -> None:
        """Raises Blocked for what may not be said."""
        self._judge(text, "answer")

    @property
    def listens(self) -> bool:
        """Somebody wants to know what is said."""
        return bool(self._classifiers)

    def _judge(self, text: str, side: Side) -> None:
        for start in range(0, max(1, len(text) - WINDOW // 2), WINDOW // 2):
            part = text[start : start + WINDOW]
            for classifier in self._classifiers:
                why = classifier.judge(part, side)
                if why is not None:
                    raise Blocked(f"this {side} is not let through: {why}")

    def _take(self, tenant: str) -> None:
        rate = self._rates.get(tenant, self._rate)
        if rate is None:
            return
        with self._lock:
            bucket = self._buckets.setdefault(tenant, Bucket(rate.a_second, rate.burst))
            wait = bucket.take(self._clock.monotonic())
        if wait:
            raise Limited(tenant, wait)

    def __repr__(self) -> str:
        return f"<Guards {len(self._buckets)} tenants, {len(self._classifiers)} classifiers, {self._before!r}>"


@dataclass(slots=True)
class _Hearing:
    """One answer as it comes."""

    guards: Guards
    tenant: str
    key: str | None
    tail: str = ""
    chunks: list[Chunk] = field(default_factory=list)

    def hear(self, chunk: Chunk) -> None:
        if isinstance(chunk, Piece) and chunk.text and self.guards.listens:
            self.tail = (self.tail + chunk.text)[-WINDOW:]
            self.guards.said(self.tail)
        if self.key is not None:
            self.chunks.append(chunk)
            if isinstance(chunk, Ended) and chunk.reason in ("stop", "length"):
                self.guards.keep(self.tenant, self.key, self.chunks)


def _safe(rule: str) -> re.Pattern[str]:
    why = why_unsafe(rule)
    if why is not None:
        raise ValueError(f"the pattern {rule!r}: found {why}; expected one that is quickly matched")
    if reach(rule) < WINDOW:
        raise ValueError(f"the pattern {rule!r}: found one that takes too long for {WINDOW} characters; repeat less")
    return compiled(rule)
