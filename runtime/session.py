"""One agent's conversation, token by token: turn, mark, fork, rollback.

A session knows its tokens; keys and values are only ever a cache of them. What a mark keeps can be evicted, and going
back to it then costs time and gives the same answer. Draws depend on the seed and the place in an answer alone, and a
grammar's state follows from the tokens of the answer, so both are marked, forked and rolled back with the tokens.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self
from uuid import uuid4
from weakref import WeakSet, finalize

from ..kvstore import RAW, codec_name, is_exact
from ..tools import Tool
from ..tracing import Open, names, work_span
from .answer import Answer
from .ask import Ask, Message
from .calling import calling, tell_answer
from .errors import BadMessage, Busy, ForeignMark, ForkAlive, Lossy, SessionClosed, Unable, UnknownMark
from .family import Family, Mark, let_go, marked, seed_of
from .history import History, history_of, plain
from .host import Host
from .remnant import Remnant
from .sampling import Sampling
from .standing import Begin, Standing
from .thinning import Line


class Session:
    """A conversation on a host, for one caller at a time. Close it, or use it in a `with`.

    `repr` shows where it stands.
    """

    _host: Host
    _ask: Ask
    _history: History

    def __init__(
        self,
        host: Host,
        *,
        tenant: str = "default",
        tools: Sequence[Tool] = (),
        sampling: Sampling | None = None,
        program: str | None = None,
        history: History | None = None,
        exact: bool = True,
        **ask: Any,
    ) -> None:
        """`history` is a conversation that was held before, perhaps elsewhere: a mark has one. Only where `exact` is
        not asked for may its context be thinned.

        `ask` are other fields of Ask: `choice`, `parallel`, `constrain`, `schema`, `returns`, `timeout`, `codec`.
        Raises Unable where the engine takes no token ids, ValueError for an unknown codec.
        """
        if not host.can.tokens:
            raise Unable(f"{host.engine.name} takes messages and gives text: a session needs an engine of token ids")
        name = program or f"{tenant}/session-{uuid4()}"
        wanted = Ask((), tuple(tools), sampling=sampling or Sampling(), program=name, tenant=tenant, parts=True)
        self._settle(Family(host, name, exact=exact), replace(wanted, **ask), history or History())

    @classmethod
    def restore(cls, host: Host, key: str, *, tenant: str = "default", codec: str = RAW, **rest: Any) -> Self:
        """The conversation of a durable mark, set by this process or another; `rest` as for a new session.

        Its keys and values come from the disk with the next answer; what is missing there is computed. Raises
        UnknownMark; Mismatch, which names each field, for one of another model or codec; BadRecord for one that is
        damaged.
        """
        parked = host.saved.find(key, tenant=tenant, codec=codec_name(codec))
        if parked is None:
            known = ", ".join(sorted(host.saved.keys(tenant=tenant))) or "there are none"
            raise UnknownMark(f"no durable mark {key!r} of tenant {tenant}: {known}")
        return cls(host, tenant=tenant, history=history_of(parked.note["history"]), codec=codec, **rest)

    def pack(self) -> bytes:
        """This conversation and what is computed of it, for another process or host: `unpack` goes on with it there.

        Raises Unable for a host without tiers below the device, Lossy for a thinned conversation.
        """
        self._idle()
        self._stand.whole("packed")
        note = {"history": plain(self._history)}
        return self._host.parcels.pack(self.tokens, tenant=self._ask.tenant, note=note, codec=self.codec)

    @classmethod
    def unpack(
        cls, host: Host, data: bytes | memoryview, *, tenant: str = "default", codec: str = RAW, **rest: Any
    ) -> Self:
        """The conversation of a parcel; `rest` as for a new session.

        Raises Mismatch, which names each field, for one of another model, tenant or codec, and BadRecord for one that
        is damaged; Unable as `pack` does.
        """
        parked = host.parcels.unpack(data, tenant=tenant, codec=codec_name(codec))
        return cls(host, tenant=tenant, history=history_of(parked.note["history"]), codec=codec, **rest)

    @property
    def tokens(self) -> tuple[int, ...]:
        """All of the conversation so far."""
        return self._history.tokens

    @property
    def said(self) -> int:
        """Tokens of an answer that has been begun and not ended; 0 when the last one is whole."""
        return self._history.said

    @property
    def mode(self) -> str:
        """How its engine computes: `exact`, or `fast`."""
        return self._host.mode

    @property
    def exact(self) -> bool:
        """Whether what is said next stands on all that came before, bit for bit.

        Else on what `thin` has left of it, on what may have been through a lossy codec, or in the mode `fast`.
        """
        return self._stand.remnant is None and is_exact(self.codec) and self.mode == "exact"

    @property
    def codec(self) -> str:
        """How its keys and values are stored below the device; all but `raw` lose some of their bits there."""
        return self._ask.codec

    # -- what others say

    def feed(self, tokens: Sequence[int]) -> None:
        """Go on with these tokens; an answer that was begun is over."""
        self._idle()
        self._go_on(self._history.fed(tokens))

    def read(self, messages: Sequence[Message]) -> None:
        """Go on with these messages, as the model's template writes them.

        A template that does not only append writes the past anew; then only what is left of it is shared. Raises
        BadMessage where tokens were fed, since nobody can say which messages they are.
        """
        self._idle()
        known = self._history.messages()
        if known is None:
            raise BadMessage("this conversation was fed with tokens: feed the next ones too")
        tokens = self._host.render.tokens([*known, *messages], self._ask.tools)
        self._go_on(self._history.read(tuple(messages), tokens))

    # -- what the model says

    def generate(self, max_tokens: int | None = None, *, seed: int | None = None, **sampling: Any) -> Answer:
        """An answer, or the rest of one that was broken off; in this thread.

        Its tokens become part of the conversation. `seed` and `sampling` are for a new answer: one that goes on
        keeps its own. Raises what a turn can raise; then the conversation stands where it stood.
        """
        with self._saying(), self._drawn(max_tokens, seed, sampling) as (ask, span):
            return self._end(self._stand.wait(self._begun(ask), self.tokens), span)

    async def agenerate(self, max_tokens: int | None = None, *, seed: int | None = None, **sampling: Any) -> Answer:
        """As `generate`, in this coroutine."""
        with self._saying(), self._drawn(max_tokens, seed, sampling) as (ask, span):
            return self._end(await self._stand.arrive(self._begun(ask), self.tokens), span)

    # -- moments

    def thin(self, policy: str, *, budget: int) -> int:
        """Cut the context of all tokens but the last to at most `budget` in each head; returns how many each lost.

        `policy`: "streaming", "h2o" or "keydiff" (see kvstore.sparse). What follows is answered over what is left,
        which is not what the model would have said; `exact` is off until a rollback to this place or before. Where
        all fits nothing is lost. Thinned again, it is the whole conversation that is cut, computed once more where it
        is gone. Raises Lossy for a session that is exact, Unable for a model with windows, ValueError for what the
        policy cannot do, Refused where the pool is too small.
        """
        if self._family.exact:
            raise Lossy("this session is exact, and thinning drops what it stands on: open it with exact=False")
        with self._saying():
            return self._stand.thin(self.tokens, policy, budget)

    def mark(self, key: str, *, durable: bool = False) -> Mark:
        """Keep this moment under a name; the same name again moves it. Nothing is copied on the device.

        A `durable` mark is on the host's disk when this returns, and outlives the process: `restore` goes on with it.
        Raises Unable for that where the host was opened without a `store`, Lossy for a thinned conversation, and
        TierFull or TierGone.
        """
        self._idle()
        if durable:
            self._stand.whole("kept on a disk")
            note = {"history": plain(self._history)}
            self._host.saved.keep(key, self.tokens, tenant=self._ask.tenant, note=note, codec=self.codec)
        mark = Mark(key, self._history, self._host.engine.fingerprint, self._ask.tenant, self._stand.remnant)
        with work_span(names.KV_SNAPSHOT, {names.KV_KEY: key, names.KV_TOKENS: len(self.tokens)}):
            self._marks[key] = mark
            self._keep(marked(self._name, key), mark.history.tokens)
            return mark

    def unmark(self, key: str) -> None:
        """Nobody will go back to it. Raises UnknownMark."""
        self._find(key)
        del self._marks[key]
        self._host.unmark(marked(self._name, key))

    def target(self, mark: str | None = None) -> dict[str, str]:
        """How a hint names this conversation, or one of its marks. Raises UnknownMark."""
        if mark is not None:
            self._find(mark)
        return {"mark": self._name if mark is None else marked(self._name, mark)}

    def rollback(self, to: str | int | Mark) -> int:
        """Go back to a mark, or to the first so many tokens; returns how many were given up. Nothing is computed.

        A mark is as thinned as when it was set; by a number a conversation comes to where it was thinned, or before
        that, as if it never had been. Raises UnknownMark; ForeignMark for one of another model or tenant, or that is
        not behind this place; ForkAlive while forks live that began after it: close them first.
        """
        self._idle()
        history, remnant = self._moment(to)
        if not self._stands_behind(history):
            raise ForeignMark(
                f"the mark {to!r} is not behind this place: the conversation has gone another way since. "
                "fork(at=...) goes there"
            )
        later = sum(1 for child in self._children if child._lives_behind(len(history.tokens)))
        if later:
            raise ForkAlive(
                f"{later} forks live that began behind token {len(history.tokens)}, to which this was to go back: "
                "close them first, or fork(at=...) and leave this one as it is"
            )
        lost = len(self.tokens) - len(history.tokens)
        with work_span(names.KV_ROLLBACK, {names.KV_TOKENS: len(history.tokens), names.KV_WHY: f"{lost} given up"}):
            self._stand.remnant = remnant
            self._go_on(history)
            self._keep_place()
            return lost

    def can_go_back(self, to: str | Mark) -> bool:
        """Whether `rollback` would: the mark is behind this place, and no fork lives that began after it."""
        history = self._find(to).history
        lives = any(child._lives_behind(len(history.tokens)) for child in self._children)
        return self._stands_behind(history) and not lives

    def fork(self, n: int = 1, *, at: str | Mark | None = None, reseed: bool = True) -> list[Session]:
        """`n` conversations that go on from here, or from a mark, each its own way.

        They share what was computed, and copy less than a page. With `reseed` each draws with a seed of its own,
        made of this one's and its number; without it they would all say the same.
        """
        self._idle()
        if n < 1:
            raise ValueError(f"n: found {n}; a fork has at least one branch")
        history, remnant = self._moment(at)
        with work_span(names.KV_FORK, {names.KV_TOKENS: len(history.tokens), names.KV_BRANCHES: n}):
            return [self._child(history, remnant, reseed) for _ in range(n)]

    def close(self) -> None:
        """Let everything go. Closing twice is harmless; forks live on."""
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"{len(self._children)} forks, {len(self._marks)} marks" if self._let_go.alive else "closed"
        lossy = "" if is_exact(self.codec) else f" | lossy: {self.codec}"
        lossy += "" if self._stand.remnant is None else f" | {self._stand!r}"
        return f"<Session {len(self.tokens)} tokens, {self.said} of an answer | {state}{lossy}>"

    def _settle(self, family: Family, ask: Ask, history: History) -> None:
        self._host = family.host
        self._family = family
        self._name = f"{family.program}#{family.salt}.{next(family.numbers)}"
        self._ask = replace(ask, branch=self._name)
        self._history = history
        self._stand = Standing(family.host.thinner, Line(family.program, self._name, ask.tenant, ask.codec))
        self._born = len(history.tokens)  # where it left its parent
        self._marks: dict[str, Mark] = {}
        self._children: WeakSet[Session] = WeakSet()
        self._busy = False
        family.alive += 1
        # Who forgets to close a session must not keep its pages until their time is over.
        self._let_go = finalize(self, let_go, family, self._name, self._marks)
        self._let_go.atexit = False

    def _child(self, history: History, remnant: Remnant | None, reseed: bool) -> Session:
        child, ask = Session.__new__(Session), self._ask
        number = next(self._family.numbers)
        if reseed and ask.sampling.seed is not None:
            ask = replace(ask, sampling=replace(ask.sampling, seed=seed_of(ask.sampling.seed, number)))
        begun = history.begun
        if reseed and begun is not None and begun.sampling.seed is not None:
            history = history.reseeded(seed_of(begun.sampling.seed, number))
        child._settle(self._family, ask, history)
        child._stand.remnant = remnant
        self._children.add(child)
        child._keep_place()
        return child

    def _moment(self, at: str | int | Mark | None) -> tuple[History, Remnant | None]:
        """What there was at a mark, at the first so many tokens, or is here; and what is left of its context."""
        if isinstance(at, str | Mark):
            mark = self._find(at)
            return mark.history, mark.remnant
        return (self._history if at is None else self._history.cut(at)), self._stand.remnant

    def _go_on(self, history: History) -> None:
        self._history = history
        self._stand.follow(history.tokens)

    def _stands_behind(self, history: History) -> bool:
        return self.tokens[: len(history.tokens)] == history.tokens

    def _lives_behind(self, length: int) -> bool:
        return self._let_go.alive and self._born > length

    def _find(self, mark: str | Mark) -> Mark:
        if isinstance(mark, str):
            if mark not in self._marks:
                known = ", ".join(sorted(self._marks)) or "there are none"
                raise UnknownMark(f"no mark {mark!r} in this session: {known}")
            return self._marks[mark]
        model, tenant = self._host.engine.fingerprint, self._ask.tenant
        if (mark.model, mark.tenant) != (model, tenant):
            what = "model" if mark.model != model else f"tenant ({mark.tenant}, this is {tenant})"
            raise ForeignMark(f"the mark {mark.key!r} is of another {what}: go back to it where it was set")
        return mark

    def _keep_place(self) -> None:
        self._keep(self._name, self.tokens)

    def _keep(self, key: str, tokens: tuple[int, ...]) -> None:
        tenant, remnant = self._ask.tenant, self._stand.remnant
        self._host.mark(key, tokens, tenant=tenant, codec=self.codec, remnant=remnant)

    def _idle(self) -> None:
        if not self._let_go.alive:
            raise SessionClosed("this session is closed: open another one, or fork one that is open")
        if self._busy:
            raise Busy("this session is generating: one caller at a time; fork it to go two ways at once")

    @contextmanager
    def _saying(self) -> Iterator[None]:
        self._idle()
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    @contextmanager
    def _drawn(self, max_tokens: int | None, seed: int | None, changes: dict[str, Any]) -> Iterator[tuple[Ask, Open]]:
        """The question as it is drawn this time, and the span round its answer."""
        begun, ask = self._history.begun, self._ask
        if begun is None:
            given = ask.sampling.seed if seed is None else seed
            own = secrets.randbits(62) if given is None else given
            sampling = replace(ask.sampling, seed=own, **changes)
        elif seed is None and not changes:
            sampling = begun.sampling
        else:
            raise ValueError("an answer that goes on keeps its seed and sampling: roll it back to draw it anew")
        if max_tokens is not None:
            sampling = replace(sampling, max_tokens=max_tokens)
        self._sampling = sampling
        drawn = replace(ask, sampling=sampling)
        with calling(self._host, drawn) as span:
            yield drawn, span

    def _begun(self, ask: Ask) -> Begin:
        return lambda remnant: self._host.resume(ask, self.tokens, said=self.said, remnant=remnant)

    def _end(self, answer: Answer, span: Open) -> Answer:
        tell_answer(span, answer, self._host)
        if not self._let_go.alive:
            raise SessionClosed("this session was closed while it was generating: its answer is lost")
        self._go_on(self._history.spoken(answer.tokens, self._sampling, whole=answer.reason == "stop"))
        self._keep_place()
        return answer
