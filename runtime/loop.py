"""Carries the kernel's effects out, and brings back what came of them.

One thread owns the kernel, the ledger and the journal, and has an event loop of its own; a second one computes. All
callers, blocking or not, from whatever loop, come in by `submit` and `tell`, which never block. This is the only file
that reads the clock.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, cast

from ..kvstore import RAW, Seal
from ..scheduler import (
    Cancelled,
    CancelMove,
    Drop,
    Effect,
    Event,
    Evict,
    Extend,
    Finished,
    Grow,
    Hold,
    KvPolicy,
    Move,
    NeedRoom,
    Paused,
    Policy,
    Preempt,
    ProgramId,
    Progress,
    Refuse,
    Release,
    Reweighted,
    Setting,
    Start,
    Stepped,
    Stop,
    Tick,
    TurnId,
    Wake,
    lease_key,
)
from .alarm import Alarm
from .below import Below, kernel, owned
from .clock import Clock
from .clock_steps import StepClock
from .clock_turns import TurnClock
from .engines import End, Said, StepEngine, TurnEngine
from .errors import Busy, ContextLost, EngineFailed, HostClosed, Refused, TooLate, Unable
from .journal import Journal
from .lives import Lives
from .mover import Mover
from .passages import Passages
from .portal import Portal, Result
from .request import Request
from .seeking import Seeker
from .ticket import Ended, Piece, Ticket, wake
from .turn import Turn, arrived, job_of, kept
from .weights import Running, Weights


class Loop:
    """Turns in, chunks out. `policy` decides; `journal` gets every event. Close it, or use it in a `with`."""

    def __init__(
        self,
        engine: StepEngine | TurnEngine,
        policy: Policy,
        *,
        journal: Path | None = None,
        below: Sequence[Below] = (),
        setting: Setting | None = None,
    ) -> None:
        self.engine, self._paged = engine, cast(StepEngine, engine)  # only one with pages is given tiers
        with owned(below):
            self.kernel, self._tiers = kernel(engine, policy, below, setting), [one.tier for one in below]
            self._journal = Journal(journal, self.kernel) if journal is not None else None
        self._turns: dict[TurnId, Turn] = {}
        self._numbers = count(1)
        self._watchers: list[Callable[[Effect], None]] = []
        self._weights = Weights(engine.fingerprint, self.kernel.ledger.groups)
        self._lives = Lives(engine, self._zero)
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="sostenuto-compute")
        self._begun = threading.Event()
        self._alarm = Alarm(self._now, self._ring)
        self._stepping = isinstance(engine, StepEngine)  # asking a protocol takes long
        self._portal = Portal()
        self._start = time.monotonic()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="sostenuto-loop", daemon=True)
        self._thread.start()
        self._begun.wait()

    # -- from any thread

    def submit(self, request: Request, ticket: Ticket | None = None) -> Ticket:
        """Hand a turn in; returns at once. Errors come out of the ticket, which may be waited on already."""
        with self._portal.entering():
            number = next(self._numbers)
            turn = TurnId(f"t{number}")
            ticket = ticket or Ticket(lambda: None)
            self._portal.call(self._arrive, number, request, ticket)
            return ticket.passed(lambda: self._portal.call(self._cancel, turn))

    def tell(self, event: Event) -> None:
        """Report something that happened outside (a tool, an end); returns at once."""
        self._portal.call(self.post, event)

    def watch(self, watcher: Callable[[Effect], None]) -> None:
        """Call `watcher` with every effect, on the loop's thread; it must not block."""
        self._portal.call(self._watchers.append, watcher)

    def ask(self) -> str:
        """The kernel's state in one line, after everything told so far; raises BrokenBooks if the books are wrong."""

        async def look() -> str:
            self.kernel.books.check()
            return repr(self.kernel)

        return self.within(look()).result()

    def within(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Let the loop's thread do something, after everything told so far. Raises HostClosed."""
        return self._portal.within(work)

    @property
    def closed(self) -> bool:
        """Nobody is let in any more."""
        return self._portal.closed

    def root(self, tenant: str, codec: str = RAW) -> str:
        """The root of a tenant's context names under the present weights and a codec, in hex."""
        return self._weights.root(tenant, codec)

    @property
    def weights(self) -> int:
        """The version of the weights."""
        return self._weights.version

    def abort(self, program: str | None = None) -> int:
        """End every turn, or those of one program, where they stand: what was said is kept, and can be gone on with.

        Returns how many turns that was.
        """

        async def end() -> int:
            names = [name for name, turn in self._turns.items() if program in (None, turn.request.program)]
            for name in names:
                self._over(name, "abort")
            return len(names)

        return self.within(end()).result()

    def update(
        self, load: Callable[[int], None], version: int | None, *, kv: KvPolicy, running: Running
    ) -> Future[int]:
        """Give the model new weights between two steps; `load` is called on the compute thread with their version.

        It is one more than before unless it is given; the answer is what it became.
        Raises Unable where the engine takes none, Busy when turns run that nobody has told what to do with.
        """
        if not self.engine.can.weights:
            raise Unable(f"{self.engine.name} takes no weights while it runs: give them to its server")
        return self.within(self._reweight(load, version, kv, running))

    def close(self) -> None:
        """Cancel what runs, end both threads, close the journal. Closing twice is harmless."""
        self._portal.shut(lambda: self._clock.stop())
        self._thread.join()
        self._compute.shutdown()
        if self._journal is not None:
            self._journal.close()

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- on the loop's own thread

    async def aside(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Let the compute thread do something between steps, when nobody writes any more on pages he had before."""
        await self._clock.at_rest()
        return await self._loop.run_in_executor(self._compute, work, *arguments)

    def _now(self) -> float:
        return time.monotonic() - self._start

    def _zero(self) -> int:
        """When this clock stood at zero, in nanoseconds since the epoch."""
        return time.time_ns() - int(self._now() * 1e9)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._break)
        self._portal.open()
        self._clock: Clock
        if self._stepping:
            self._clock = StepClock(self._paged, self, self._compute, now=self._now)
        else:
            self._clock = TurnClock(cast(TurnEngine, self.engine), self)
        self.mover = Mover(self._paged, self._tiers, report=self.post, seal=self.seal, at_rest=self._clock.at_rest)
        self._seeker = Seeker(self.kernel, self.mover, alive=self._turns, post=self.post, root=self._root_of)
        try:
            await self.mover.open()
            self._begun.set()
            await self._clock.run()
            if not self._portal.why:
                for name in list(self._turns):
                    self._finish(name, HostClosed("the host was closed while this turn was on its way"))
        finally:
            self._begun.set()
            self._portal.closed = True
            self._lives.close(self._now())
            for turn in self._turns.values():
                turn.ticket.put(HostClosed(f"the host broke down{self._portal.why}: see its log"))
            self._turns.clear()
            await self.mover.close()

    def _break(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A defect of ours in a callback: the books may be wrong. Better to end every turn than to let them hang."""
        loop.default_exception_handler(context)
        self._portal.closed, self._portal.why = True, f" ({context.get('exception') or context['message']})"
        self._clock.stop()

    def _arrive(self, number: int, request: Request, ticket: Ticket) -> None:
        name = TurnId(f"t{number}")
        if self.closed:
            ticket.put(HostClosed("the host was closed before this turn began"))
            return
        job = job_of(request, name, self.root(*request.owner), self.engine)
        turn = self._turns[name] = Turn(request, job, ticket, Passages(self._now()))
        if len(job.tokens) >= self.engine.longest:
            why = f"its prompt has {len(job.tokens)} tokens, {self.engine.name} takes {self.engine.longest} in all"
            return self._finish(name, Refused(f"{why}: shorten it"))
        if request.timeout is not None:
            late = TooLate(f"no whole answer within {request.timeout:g} s: give it more time, or fewer tokens to say")
            turn.timer = self._loop.call_later(request.timeout, self._finish, name, late)
        self._seeker.arrive(arrived(request, job, number, self.engine))

    def _cancel(self, name: TurnId) -> None:
        # Whoever cancelled has left; another thread or coroutine may still be reading, and must not wait for ever.
        self._finish(name, CancelledError(f"turn {name} was cancelled"))

    def post(self, event: Event) -> list[Effect]:
        self._seeker.before(event)
        now = self._now()
        effects = self.kernel.handle(event, now)
        if self._journal is not None:
            self._journal.write(event, now, effects)
        self._lives.heard(event)
        # What ends a turn comes last: it posts an event of its own, whose effects must follow all of these.
        for effect in sorted(effects, key=lambda effect: isinstance(effect, Stop | Refuse)):
            self._carry(effect)
            for watcher in self._watchers:
                watcher(effect)
        return effects

    def _carry(self, effect: Effect) -> None:
        match effect:
            case Start(turn=name):
                self._begin(self._turns[name], effect)
            case Grow():
                self._clock.grow(effect)
            case Preempt(turn=name, why=why):
                self._turns[name].passages.preempted(self._now(), why)
                self._clock.suspend(name)
            case Evict(turn=name, pages=pages, why=why):
                self._turns[name].passages.evicted(self._now(), why, pages)
            case Stop(turn=name):
                self._cut(name)
            case Refuse(turn=name, why=why, lost=lost):
                self._finish(name, ContextLost(why) if lost else Refused(why))
            case Wake():
                self._alarm.set(self.kernel.soonest)
            case Move() | CancelMove() | Drop():
                self.mover.carry(effect)
            case Hold() | Extend():
                if isinstance(effect, Hold):
                    self._lives.held(effect, self._now())
                self._clock.hold(lease_key(effect.program, effect.branch), effect.until - self._now())
            case Release(program=program, branch=branch):
                self._lives.released(effect, self._now())
                self._clock.release(lease_key(program, branch))
        # The others change books, as the kernel has done already, or are carried out by who told of their event.

    def _root_of(self, turn: TurnId) -> str:
        return self.root(*self._turns[turn].request.owner)

    def _ring(self) -> None:
        self.post(Tick())
        self._alarm.set(self.kernel.soonest)

    def seal(self, root: str) -> Seal | None:
        """What is stored under a root is sealed with; None for one of weights that are gone. Loop's thread only."""
        return None if (behind := self._weights.behind(root)) is None else self._paged.seal(*behind)

    def _begin(self, turn: Turn, effect: Start) -> None:
        turn.passages.enter("prefill", self._now(), effect.why)
        if not turn.started:
            # When it is started again, what is found is no hit: it was computed for this turn already.
            turn.started, turn.reused, turn.why, turn.tier = True, effect.reuse, effect.why, effect.tier
            if self.engine.can.tokens:
                self._lives.began(turn, effect)
        turn.job.priority = self.kernel.books.program(ProgramId(turn.request.program)).number
        turn.stale += self._clock.begin(turn.job, effect)

    def need(self, turns: tuple[TurnId, ...]) -> None:
        self.post(NeedRoom(turns))

    def settle(self, said: Sequence[Said]) -> None:
        """Books first: whoever ended frees or holds pages in the same moment in which the step is over."""
        alive, heard = [one for one in said if one.turn in self._turns], list[Ticket]()
        if self._stepping:
            self._paged.settle(alive)
        steps = tuple(Progress(one.turn, one.computed, () if one.token is None else (one.token,)) for one in alive)
        for one in alive:
            turn = self._turns[one.turn]
            turn.passages.step(one.computed)
            turn.usage = one.usage or turn.usage
            if one.token is not None or one.text:
                turn.passages.spoke(self._now(), one.token is not None, forced=one.forced)
                turn.text.append(one.text)
                turn.ticket.put(Piece.of(one), wake=False)
                heard.append(turn.ticket)
        # Readers are woken when the next step is on its way: they would take time from whoever plans it.
        self._loop.call_soon(wake, heard)
        self.post(Stepped(steps))
        for one in alive:
            if one.turn in self._turns and one.end is not None:
                self._over(one.turn, one.end)
        for one in alive:
            if one.fault is not None:
                self._finish(one.turn, one.fault)

    def _over(self, name: TurnId, reason: End) -> None:
        turn = self._forget(name)
        assert turn is not None  # whoever calls has just seen it
        text = "".join(turn.text)
        tools = turn.request.tools_called(text, reason)
        self._lives.ends(turn, tools, self._now())
        turn.request.ending(name)
        effects = self.post(Paused(name, tools, turn.request.shape(text, reason)) if tools else Finished(name))
        hold = next((effect for effect in effects if isinstance(effect, Hold) and effect.turn == name), None)
        if hold is None:
            self._clock.release(turn.job.key)  # what an engine keeps by itself for a while is not needed either
        tell = turn.counted if self.engine.can.preempt else turn.told
        facts = tell(kept(hold, self._now(), time.time()), self.kernel.policy.name, self._weights.version)
        self._lives.over(turn, facts)
        turn.ticket.put(Ended(reason, facts))

    def _cut(self, name: TurnId) -> None:
        """End a turn that can never go on, with all its text."""
        turn = self._turns[name]
        if rest := self._clock.rest(name):
            turn.text.append(rest)
            turn.ticket.put(Piece(None, rest))
        self._over(name, "length")

    def _forget(self, name: TurnId) -> Turn | None:
        turn = self._turns.pop(name, None)
        if turn is not None:
            self._clock.drop(name)
            if turn.timer is not None:
                turn.timer.cancel()
        return turn

    def _finish(self, name: TurnId, fault: BaseException) -> None:
        turn = self._forget(name)
        if turn is not None:
            self._lives.ends(turn, (), self._now())
            self._lives.over(turn, fault)
            turn.ticket.put(fault)
            self.post(Cancelled(name))

    def lost(self, turns: Sequence[TurnId] | None, fault: BaseException) -> None:
        """Report turns that the engine lost; None: all that run. Those that wait have lost nothing."""
        running = [name for name, turn in self._turns.items() if turn.started]
        for name in running if turns is None else turns:
            self._finish(name, EngineFailed.of(fault))

    async def _reweight(self, load: Callable[[int], None], given: int | None, kv: KvPolicy, running: Running) -> int:
        async with self._clock.paused():
            version = self._weights.next(given)
            begun = [name for name, turn in self._turns.items() if turn.started]
            if begun and running == "refuse":
                raise Busy.with_turns(len(begun))
            for name in begun if running == "abort" else ():
                self._over(name, "abort")
            await self._loop.run_in_executor(self._compute, load, version)
            self.post(Reweighted(kv, self._weights.advance(version, kv)))
            return version
