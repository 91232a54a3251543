"""How heavy a workload is for a device and a pool: what says beforehand whether there is anything to schedule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..costs import Costs
from .alone import alone
from .workload import Session


@dataclass(frozen=True, slots=True)
class Load:
    """Of a workload alone, whatever the policy."""

    sessions: int
    calls: int
    context: float
    """Tokens of a job's context at its end, in the mean."""
    longest: int
    """Tokens of the longest context, with the answer to its prompt."""
    d: float
    """Share of a job's own time in which the model works: t_reason / (t_reason + t_tool), both without any waiting."""

    def fits(self, pool: int) -> float:
        """How many contexts the pool holds: k."""
        return pool / self.context if self.context else 0.0

    def r(self, pool: int) -> float:
        """k times d: so many of those that fit compute at a time. Below 1 the device is idle for want of room, and
        holding work back cannot help."""
        return self.fits(pool) * self.d

    def wanted(self, users: int) -> float:
        """Tokens of the contexts that go on at once: the working set."""
        return min(users, self.sessions) * self.context

    def pressure(self, pool: int, users: int) -> float:
        """Working set over pool."""
        return self.wanted(users) / pool


def load_of(sessions: Iterable[Session], granule: int, costs: Costs) -> Load:
    """Measured over all jobs of these sessions."""
    count = calls = jobs = longest = 0
    context = reason = tools = 0.0
    for session in sessions:
        count += 1
        length = 0
        for number, call in enumerate(session.calls, 1):
            size = call.keep + len(call.add)
            known = min(call.keep, length, size - 1)
            reason += alone(costs, known * granule, size * granule, call.out)
            length = size + len(call.say)
            longest = max(longest, length)
            calls += 1
            if call.tools and number < len(session.calls):
                tools += call.pause
            else:
                jobs += 1
                context += length * granule
    return Load(
        sessions=count,
        calls=calls,
        context=context / jobs if jobs else 0.0,
        longest=longest * granule,
        d=reason / (reason + tools) if reason else 0.0,
    )
