"""Calls that are run well: in order, within their limits, at most once where once matters, and never in silence."""

from __future__ import annotations

import random
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from ...tools import Call, Problem, compact
from ...tools.contracts import Touch, touch
from ...tools.contracts_state import State, unmet
from ...tools.grants_names import canonical, digest, tool_digest
from ...tools.limits import Breaker, Bucket, Limits, pause
from .audit import Audit
from .authority import Authority, Place
from .clock import Clock
from .course import Course
from .credentials import holding
from .deadline import ToolTimedOut
from .gates import Slots, Turns, when_all
from .kept import Kept, Key
from .key import keyed
from .outcome import Denied, Job, Outcome, Plain, Sibling, Values
from .permits import permit, step_up
from .policy import Policy
from .providers import needed_scopes
from .recording import broken_off, record_decision, record_outcome, record_rejection
from .results import cut_off, failed, faulty, later, not_begun, refuse
from .steps import Attempt, Sleep, Steps, Stopped, Wait, adrive, drive

UNSURE = 4096
"""Calls of unknown effect that are remembered."""


class Executor:
    """Runs calls of any number of graphs, threads and event loops under one policy."""

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        authority: Authority | None = None,
        audit: Audit | None = None,
        clock: Clock | None = None,
        luck: Callable[[], float] = random.random,
    ) -> None:
        self.policy = policy or Policy()
        self._clock = clock or Clock()
        self.authority = authority or Authority(clock=self._clock)
        self._audit = audit
        self._luck = luck
        self._lock = threading.Lock()
        self._turns = Turns()
        self._slots = Slots()
        self._kept = Kept()
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._breakers: dict[str, Breaker] = {}
        self._world = State()
        self._branches: dict[tuple[str, str], State] = {}
        self._running: dict[int, Course] = {}
        self._unsure: dict[tuple[str, str, str], Outcome] = {}
        """Calls that may have taken effect: they are never made again."""

    def run(self, job: Job, attempt: Callable[[], Any], values: Values | None = None) -> Outcome:
        """What comes of a call, made in threads. Raises only what `values` lets pass."""
        course = self._course(job, values)

        def holding_its_token() -> Any:
            with holding(course.token), keyed(_named(job)):
                return attempt()

        return drive(self._steps(course), holding_its_token, course.scope)

    async def arun(self, job: Job, attempt: Callable[[], Awaitable[Any]], values: Values | None = None) -> Outcome:
        """As `run`, in the caller's event loop."""
        course = self._course(job, values)

        async def holding_its_token() -> Any:
            with holding(course.token), keyed(_named(job)):
                return await attempt()

        return await adrive(self._steps(course), holding_its_token, course.scope)

    def expect(self, sibling: Sibling) -> None:
        """All calls of this turn will come, so that each may wait for those before it."""
        self._turns.expect(sibling.turn, self._touches(sibling))

    def reject(self, call: Call, place: Place, why: str, sibling: Sibling | None = None) -> None:
        """This call is over without having been made; `why` in a word or two."""
        record_rejection(self._audit, call, place, why)
        if sibling is not None:
            self._turns.leave(sibling.turn, sibling.place)

    def refuse(self, tool: str) -> None:
        """This tool is not taken at all: its schema cannot be used."""
        record_rejection(self._audit, Call("", tool, {}, ""), Place(), "refused")

    def cancel(self, why: str, which: Callable[[Job], bool]) -> int:
        """Gives up the running calls that are meant; how many those were."""
        with self._lock:
            meant = [course.scope for course in self._running.values() if which(course.job)]
        for scope in meant:
            scope.cancel(why)
        return len(meant)

    def revoke(self, why: str, tenant: str, *, session: str = "", tool: str = "") -> int:
        """Revokes what was granted and gives up the calls that run under it; how many those were."""
        self.authority.revoke(tenant, session=session, tool=tool)
        return self.cancel(
            why,
            lambda job: (
                job.ceilings is not None
                and job.tenant == tenant
                and session in ("", job.session)
                and tool in ("", job.tool.name)
            ),
        )

    def branch(self, tenant: str, session: str, of: str | None = None) -> State:
        """Gives a session a world of its own from now on: a copy of the common one, or of another session's.

        Without this, all sessions share one world, and what one writes the others no longer know.
        """
        with self._lock:
            source = self._world if of is None else self._branches.get((tenant, of), self._world)
            self._branches[tenant, session] = source.fork()
            return self._branches[tenant, session]

    def roll_back(self, tenant: str, session: str, to: State) -> None:
        """The session's world is again as it was when `to` was forked from it."""
        with self._lock:
            self._branches[tenant, session] = to.fork()

    def state(self, tenant: str = "default", session: str = "") -> State:
        """What is known of a session's world. Tell it what you know: `state().know({...})`."""
        return self._branches.get((tenant, session), self._world)

    def _course(self, job: Job, values: Values | None) -> Course:
        name = job.tool.name
        return Course(
            job, self.policy.contract(name), self.policy.limit(name), values or Plain(), self._clock.monotonic()
        )

    def _steps(self, course: Course) -> Steps[Outcome]:
        """The whole of a call."""
        job, outcome, put_off = course.job, self._again(course.job), False
        if outcome is not None:
            self._recorded(course, outcome)
            return outcome
        with self._lock:
            self._running[id(course)] = course
        try:
            if job.sibling is not None:
                one = job.sibling
                asked = self._turns.enter(one.turn, one.place, self._touches(one), one.run)
                if not (yield Wait(asked, self._left(course))):
                    raise course.values.put_off()
            with self.authority.task(job.place):
                denied = yield from permit(self.authority, course)
                course.decided = record_decision(self._audit, course, self.authority)
                outcome = denied or (yield from self._met(course))
        except ToolTimedOut as error:
            outcome = not_begun(job, str(error))
        except Stopped as error:
            outcome = not_begun(job, str(error), given_up=True)
        except BaseException as error:
            put_off = course.values.passes(error)
            code = broken_off(course, put_off=put_off)
            told = cut_off(job, course.contract, "nobody waited for it any more").told
            self._recorded(course, Outcome(code, told=told))
            raise
        finally:
            with self._lock:
                del self._running[id(course)]
            if job.sibling is not None:
                self._turns.leave(job.sibling.turn, job.sibling.place, outcome, put_off=put_off)
        self._recorded(course, outcome)
        return replace(outcome, attempts=course.attempts, seconds=self._clock.monotonic() - course.begun)

    def _again(self, job: Job) -> Outcome | None:
        """What came of this very call before: a node that runs again does not run what is over, or may be."""
        if job.sibling is not None:
            before: Outcome | None = self._turns.answer(job.sibling.turn, job.sibling.place, job.sibling.run)
            if before is not None:
                return before
        with self._lock:
            return self._unsure.get((job.tenant, job.session, job.key))

    def _recorded(self, course: Course, outcome: Outcome) -> None:
        """Into the log; and what may have taken effect is remembered, so that it is never made again."""
        job = course.job
        record_outcome(self._audit, course, course.decided, outcome, self._clock.monotonic() - course.begun)
        if outcome.code == "unknown" and job.key and not course.contract.repeatable:
            with self._lock:
                self._unsure[job.tenant, job.session, job.key] = outcome
                if len(self._unsure) > UNSURE:
                    del self._unsure[next(iter(self._unsure))]

    def _met(self, course: Course) -> Steps[Outcome]:
        """Only if what it requires holds; from an answer that there is or will be, where one will do."""
        job, contract = course.job, course.contract
        missing = unmet(contract, job.call.arguments, self._state(job))
        if missing:
            return Outcome("unmet", told=compact([problem for _, problem in missing]))
        if not contract.harmless:
            return (yield from self._admitted(course))
        key = self._key(course)
        while True:
            kept = self._kept.look(key) if contract.cache else None
            if kept is not None:
                return Outcome("cached", course.values.again(kept, job.call))
            flight = self._kept.join(key)
            if flight is None:
                return (yield from self._leading(course, key))
            landed = yield Wait(flight, self._left(course))
            if landed is not None:
                return Outcome("shared", course.values.again(landed, job.call))

    def _leading(self, course: Course, key: Key) -> Steps[Outcome]:
        """Equal calls wait for this one's answer."""
        common = None
        try:
            outcome = yield from self._admitted(course)
            if outcome.code == "ran" and course.values.again(outcome.value, course.job.call) is not None:
                common = outcome.value
                if course.contract.cache and self._key(course) == key:  # nobody has written meanwhile
                    self._kept.keep(key, common)
        finally:
            self._kept.land(key, common)
        return outcome

    def _admitted(self, course: Course) -> Steps[Outcome]:
        """Within the rates, and past the breaker."""
        job, limits, now = course.job, course.limits, self._clock.monotonic()
        with self._lock:
            wait = self._take(job.tenant, job.tool.name, limits, now)
            breaker = self._breakers.setdefault(job.tool.name, Breaker(limits.failures, limits.cooldown))
            shut = 0.0 if wait else breaker.ask(now)
            probe = not (wait or shut) and breaker.state == "probing"
        if wait:
            return later(job, "there were too many calls", wait)
        if shut:
            return replace(later(job, "it has kept failing and is left alone", shut), code="open")
        ok: bool | None = None
        try:
            outcome = yield from self._in_place(course)
            if not course.given_up:
                ok = outcome.code == "ran"
        finally:
            with self._lock:
                breaker.told(self._clock.monotonic(), ok=ok if course.attempts else None, probe=probe)
        return outcome

    def _in_place(self, course: Course) -> Steps[Outcome]:
        """Holds a place of the tenant's and one of the tool's; a thread that is left behind keeps the tool's."""
        job = course.job
        tool, tenant = ("tool", job.tool.name), ("tenant", job.tenant)
        taken: list[tuple[str, str]] = []
        try:
            for key, room in ((tenant, self.policy.tenant.at_once), (tool, course.limits.at_once)):
                asked = self._slots.ask(key, room)
                try:
                    yield Wait(asked, self._left(course))
                except BaseException:
                    self._slots.forget(key, asked)
                    raise
                taken.append(key)
            refused = self.authority.spend(course.grant, course.asked) if course.grant is not None else None
            if refused is not None:  # spent, revoked or over since it was looked at
                course.denied = refused.code
                record_decision(self._audit, course, self.authority)
                return refuse(job, refused.problems)
            return (yield from self._attempts(course))
        finally:
            if tenant in taken:
                self._slots.leave(tenant)
            if tool in taken:
                when_all(course.behind, lambda: self._slots.leave(tool))
                for each in course.behind:  # what it does late, it may do at any time until then
                    each.add_done_callback(lambda _: self._state(job).done(course.contract, job.call.arguments))

    def _attempts(self, course: Course) -> Steps[Outcome]:
        """Runs the tool, again where a second attempt does no harm and there is time for it."""
        job, contract, limits = course.job, course.contract, course.limits
        outcome = not_begun(job, "there was no time left")
        most = 1 + (limits.retries if contract.repeatable else 0)
        while course.attempts < most:
            left = self._left(course)
            if course.attempts:
                rest = pause(course.attempts, self._luck())
                if left is not None and rest >= left:
                    break
                try:
                    yield Sleep(rest)
                except Stopped:
                    break
                left = self._left(course)
            course.attempts += 1
            outcome = yield from self._attempt(course, left)
            if course.refused and (yield from step_up(self.authority, course)):
                course.attempts += 1  # it was refused, so nothing was done: even a write may be made now
                outcome = yield from self._attempt(course, self._left(course))
            if outcome.code in ("ran", "misshapen", "denied") or course.given_up:
                break
        return outcome

    def _attempt(self, course: Course, left: float | None) -> Steps[Outcome]:
        job, contract, limits = course.job, course.contract, course.limits
        known = [seconds for seconds in (left, limits.timeout) if seconds is not None]
        hedge = limits.hedge if contract.harmless else None
        course.inside, course.refused = True, ()
        try:
            value = yield Attempt(min(known, default=None), course.behind.append, hedge)
        except ToolTimedOut as error:
            course.inside = False
            return cut_off(job, contract, f"ToolTimedOut: {error}")
        except Stopped as error:
            course.given_up, course.inside = True, False
            return cut_off(job, contract, str(error), given_up=True)
        except Denied as error:
            course.inside, course.denied = False, error.code
            record_decision(self._audit, course, self.authority)
            return refuse(job, (Problem("", str(error)),))
        except Exception as error:  # a tool may raise anything: the model is told, the run goes on
            course.inside = False
            if course.values.passes(error):
                raise
            course.refused = needed_scopes(error)
            return failed(job, contract, error)
        finally:
            self._state(job).done(contract, job.call.arguments)
        course.inside = False
        wrong = faulty(job, contract, value, course.values, limits.longest)
        if wrong is not None:
            return wrong
        self._state(job).ensured(contract, job.call.arguments)
        return Outcome("ran", value)

    def _take(self, tenant: str, tool: str, limits: Limits, now: float) -> float:
        """One from the tenant's bucket for this tool and one from that for all tools, or none of either."""
        buckets = [
            self._buckets.setdefault((tenant, name), Bucket(limit.rate, limit.burst))
            for name, limit in ((tool, limits), ("", self.policy.tenant))
            if limit.rate is not None
        ]
        wait = max((bucket.wait(now) for bucket in buckets), default=0.0)
        if not wait:
            for bucket in buckets:
                bucket.take(now)
        return wait

    def _key(self, course: Course) -> Key:
        job = course.job
        seen = self._state(job).digest(touch(course.contract, job.call.arguments).reads)
        return (job.tenant, job.tool.name, tool_digest(job.tool), canonical(job.call.arguments), seen)

    def _touches(self, sibling: Sibling) -> list[Touch]:
        return [touch(self.policy.contract(name), arguments) for name, arguments in sibling.calls]

    def _state(self, job: Job) -> State:
        return self.state(job.tenant, job.session)

    def _left(self, course: Course) -> float | None:
        """Seconds that the call still has."""
        if course.limits.deadline is None:
            return None
        return max(0.0, course.begun + course.limits.deadline - self._clock.monotonic())

    def __repr__(self) -> str:
        return f"<Executor {len(self._running)} running | {self._slots!r} | {self._turns!r} | {self._kept!r}>"


def _named(job: Job) -> str:
    """The same for the same call and for no other, and nothing can be read from it."""
    return digest([job.tenant, job.session, job.key]) if job.key else ""
