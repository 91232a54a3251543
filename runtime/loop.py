"""Carries the kernel's effects out, and brings back what came of them.

One thread owns the kernel, the ledger and the journal, and has an event loop of its own; a second one computes. All
callers, blocking or not, from whatever loop, come in by `submit` and `tell`, which never block. This is the only file
that reads the clock.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from ..kvstore import Ledger
from ..scheduler import (
    Arrived,
    Cancelled,
    Effect,
    Event,
    Finished,
    Grow,
    Hold,
    Kernel,
    NeedRoom,
    Paused,
    Policy,
    Preempt,
    ProgramId,
    Progress,
    Refuse,
    Release,
    Start,
    Stepped,
    Stop,
    Tick,
    TurnId,
    Wake,
)
from ..tools import Grammar
from .engines import End, Job, Said, StepEngine
from .errors import EngineFailed, HostClosed, Refused, TooLate
from .journal import Journal
from .sampling import Sampling
from .ticket import Ended, Facts, Piece, Ticket


@dataclass(frozen=True, slots=True)
class Request:
    """One turn to be run."""

    program: str
    branch: str
    root: str
    """The root of the context's names, in hex."""
    tokens: tuple[int, ...]
    sampling: Sampling
    grammar: Grammar | None = None
    tools_called: Callable[[str, End], tuple[str, ...]] = lambda text, reason: ()
    """Names of the tools that a finished answer calls: if there are any, the program pauses and will come back."""
    forced: tuple[int, ...] | None = None
    """Said instead of an answer of the model's own; at least one token."""
    tended: bool = True
    """Somebody will say when the program is over (`Closed`)."""
    timeout: float | None = None
    """Seconds after which an answer is wanted no more, waiting for admission included."""

    def __post_init__(self) -> None:
        if self.forced == ():
            raise ValueError("forced: found no token; give at least one, or None for an answer of the model's own")


@dataclass(slots=True)
class _Turn:
    """A turn between its arrival and its end."""

    request: Request
    job: Job
    ticket: Ticket
    arrived: float
    started: float | None = None
    reused: int = 0
    why: str = ""
    rows: int = 0
    text: list[str] = field(default_factory=list)


class Loop:
    """Turns in, chunks out. `policy` decides; `journal` gets every event. Close it, or use it in a `with`."""

    def __init__(self, engine: StepEngine, policy: Policy, *, journal: Path | None = None) -> None:
        self.engine = engine
        self.kernel = Kernel(Ledger(engine.room, engine.page, rank=policy.evict), policy)
        self._journal = Journal(journal, self.kernel) if journal is not None else None
        self._turns: dict[TurnId, _Turn] = {}
        self._numbers = count(1)
        self._watchers: list[Callable[[Effect], None]] = []
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="sostenuto-compute")
        self._begun = threading.Event()
        self._closed = False
        self._broken = False
        self._door = threading.Lock()  # nobody comes in between the look at `_closed` and the loop's end
        self._start = time.monotonic()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="sostenuto-loop", daemon=True)
        self._thread.start()
        self._begun.wait()

    # -- from any thread

    def submit(self, request: Request) -> Ticket:
        """Hand a turn in; returns at once. Errors come out of the ticket."""
        with self._door:
            if self._closed:
                raise HostClosed("this host is closed: open another one")
            turn = TurnId(f"t{next(self._numbers)}")
            ticket = Ticket(lambda: self._call(self._cancel, turn))
            self._call(self._arrive, turn, request, ticket)
            return ticket

    def tell(self, event: Event) -> None:
        """Report something that happened outside (a tool, an end); returns at once."""
        self._call(self._post, event)

    def watch(self, watcher: Callable[[Effect], None]) -> None:
        """Call `watcher` with every effect, on the loop's thread; it must not block."""
        self._call(self._watchers.append, watcher)

    def ask(self) -> str:
        """The kernel's state in one line, after everything told so far; raises BrokenBooks if the books are wrong."""

        async def look() -> str:
            self.kernel.check()
            return repr(self.kernel)

        with self._door:
            if self._closed:
                raise HostClosed("this host is closed: open another one")
            answer = asyncio.run_coroutine_threadsafe(look(), self._loop)
        return answer.result()

    def close(self) -> None:
        """Cancel what runs, end both threads, close the journal. Closing twice is harmless."""
        with self._door:
            self._closed = True
            self._call(self._work.set)
        self._thread.join()
        self._compute.shutdown()
        if self._journal is not None:
            self._journal.close()

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- on the loop's own thread

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nothing is left that could be changed
            self._loop.call_soon_threadsafe(function, *arguments)

    def _now(self) -> float:
        return time.monotonic() - self._start

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._break)
        self._work = asyncio.Event()
        self._begun.set()
        try:
            await self._serve()
        finally:
            self._closed = True
            for turn in self._turns.values():
                turn.ticket.put(HostClosed("the host broke down while this turn was on its way: its log says why"))
            self._turns.clear()

    async def _serve(self) -> None:
        while not self._closed:
            if short := self.engine.short():
                self._post(NeedRoom(short))
            step = self.engine.plan()
            if step is None:
                self._work.clear()
                await self._work.wait()
                continue
            try:
                future = self._loop.run_in_executor(self._compute, self.engine.run, step)
            except RuntimeError:
                break  # the interpreter is shutting down and takes no new work: whoever waits is told below
            await asyncio.wait([future])
            fault = future.exception()
            if self._broken:
                break
            if fault is not None:
                self._fail(fault)
            else:
                self._settle(future.result())
        if not self._broken:
            for name in list(self._turns):
                self._finish(name, HostClosed("the host was closed while this turn was on its way"))

    def _break(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A defect of ours in a callback: the books may be wrong. Better to end every turn than to let them hang."""
        loop.default_exception_handler(context)
        self._closed = self._broken = True
        self._work.set()

    def _arrive(self, name: TurnId, request: Request, ticket: Ticket) -> None:
        if self._closed:
            ticket.put(HostClosed("the host was closed before this turn began"))
            return
        job = Job(name, list(request.tokens), len(request.tokens), request.sampling, request.grammar, request.forced)
        self._turns[name] = _Turn(request, job, ticket, self._now())
        if len(request.tokens) >= self.engine.longest:
            why = f"its prompt has {len(request.tokens)} tokens, {self.engine.name} takes {self.engine.longest} in all"
            self._finish(name, Refused(f"{why}: shorten it"))
            return
        if request.timeout is not None:
            late = TooLate(f"no whole answer within {request.timeout:g} s: give it more time, or fewer tokens to say")
            self._loop.call_later(request.timeout, self._finish, name, late)
        program, tokens = ProgramId(request.program), request.tokens
        limit = request.sampling.max_tokens
        self._post(Arrived(name, program, request.branch, request.root, tokens, limit, request.tended))

    def _cancel(self, name: TurnId) -> None:
        # Whoever cancelled has left; another thread or coroutine may still be reading, and must not wait for ever.
        self._finish(name, CancelledError(f"turn {name} was cancelled"))

    def _post(self, event: Event) -> list[Effect]:
        now = self._now()
        effects = self.kernel.handle(event, now)
        if self._journal is not None:
            self._journal.write(event, now, effects)
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
                self.engine.grow(effect)
            case Preempt(turn=name):
                self.engine.suspend(name)
            case Stop(turn=name):
                self._over(name, "length")
            case Refuse(turn=name, why=why):
                self._finish(name, Refused(why))
            case Wake(at=at):
                self._loop.call_later(max(0.0, at - self._now()) + 0.001, self._post, Tick())
            case Hold() | Release():
                pass  # books only: the kernel has changed them already

    def _begin(self, turn: _Turn, effect: Start) -> None:
        if turn.started is None:
            turn.started, turn.reused, turn.why = self._now(), effect.reuse, effect.why
        # When it is started again, what is found is no hit: it was computed for this turn already.
        self.engine.start(turn.job, effect)
        self._work.set()

    def _settle(self, said: Sequence[Said]) -> None:
        """Books first: whoever ended frees or holds pages in the same moment in which the step is over."""
        alive = [one for one in said if one.turn in self._turns]
        self.engine.settle(alive)
        ended = [one for one in alive if one.end is not None]
        for one in ended:
            self.engine.drop(one.turn)
        steps = tuple(Progress(one.turn, one.computed, () if one.token is None else (one.token,)) for one in alive)
        for one in alive:
            turn = self._turns[one.turn]
            turn.rows += one.computed
            if one.token is not None:
                turn.text.append(one.text)
                turn.ticket.put(Piece(one.token, one.text, one.logprob, one.top))
        self._post(Stepped(steps))
        for one in ended:
            if one.turn in self._turns and one.end is not None:
                self._over(one.turn, one.end)

    def _over(self, name: TurnId, reason: End) -> None:
        turn = self._turns.pop(name)
        self.engine.drop(name)
        tools = turn.request.tools_called("".join(turn.text), reason)
        effects = self._post(Paused(name, tools) if tools else Finished(name))
        hold = next((effect for effect in effects if isinstance(effect, Hold) and effect.turn == name), None)
        turn.ticket.put(Ended(reason, self._facts(name, turn, hold)))

    def _facts(self, name: TurnId, turn: _Turn, hold: Hold | None) -> Facts:
        prompt, held = turn.job.prompt, hold.until - self._now() if hold is not None else 0.0
        said = len(turn.job.tokens) - prompt
        return Facts(
            turn=name,
            program=turn.request.program,
            policy=self.kernel.policy.name,
            prompt_tokens=prompt,
            reused_tokens=turn.reused,
            computed_tokens=prompt - turn.reused,
            recomputed_tokens=max(0, turn.rows - (prompt - turn.reused) - max(0, said - 1)),
            said_tokens=said,
            queued_s=(turn.started or turn.arrived) - turn.arrived,
            why=turn.why,
            held_s=held,
            held_until=time.time() + held if hold is not None else 0.0,
            held_tokens=hold.tokens if hold is not None else 0,
            hold_why=hold.why if hold is not None else "",
        )

    def _finish(self, name: TurnId, fault: BaseException) -> None:
        turn = self._turns.pop(name, None)
        if turn is not None:
            self.engine.drop(name)
            turn.ticket.put(fault)
            self._post(Cancelled(name))

    def _fail(self, fault: BaseException) -> None:
        # Turns that wait have lost nothing.
        for name in [name for name, turn in self._turns.items() if turn.started is not None]:
            error = EngineFailed(f"the engine failed in a step ({type(fault).__name__}: {fault}); this turn is lost")
            error.__cause__ = fault
            self._finish(name, error)
