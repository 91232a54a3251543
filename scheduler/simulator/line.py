"""A session on its way: where it stands, and what it would have taken on a device of its own."""

from __future__ import annotations

from itertools import accumulate

from ..costs import Costs
from ..events import ProgramId
from .alone import alone
from .batch import Running
from .workload import Call, Session


class Line:
    """One line of conversation in a run."""

    __slots__ = (
        "_first",
        "_left",
        "arrived",
        "begun",
        "computed",
        "context",
        "granule",
        "ideal",
        "jobs",
        "lane",
        "place",
        "program",
        "resumes",
        "running",
        "session",
        "tools_out",
        "wanted",
    )

    def __init__(self, session: Session, granule: int) -> None:
        self.session = session
        self.program = ProgramId(f"{session.tenant}/{session.name}")
        self.granule = granule
        self.place = 0
        self.context: list[int] = []
        self.computed = 0
        """Granules of the context that were computed when its last turn ended."""
        self.running: Running
        self.arrived = 0.0
        """When its present call came."""
        self.begun = 0.0
        self.ideal = 0.0
        self.jobs = 0
        self.tools_out = 0
        self.resumes = False
        """Does its present call come back from a tool?"""
        self._first = 0
        self._left: list[float] = []
        self.wanted = 0
        """Granules of the present prompt that had been computed before."""
        self.lane: int | None = None
        """Its place in the timeline, if it is shown there."""

    @property
    def call(self) -> Call:
        return self.session.calls[self.place]

    @property
    def more(self) -> bool:
        """Are there calls after the present one, or from it on if it is over?"""
        return self.place < len(self.session.calls)

    def begin(self, now: float, costs: Costs) -> None:
        """Another job begins: all calls up to the next answer."""
        self.begun, self.resumes, self.jobs = now, False, self.jobs + 1
        self.ideal = self._alone(costs)

    def prompt(self) -> tuple[int, ...]:
        """What the present call asks; how much of it was computed before is known from here on."""
        call = self.call
        prompt = (*self.context[: call.keep], *call.add)
        self.wanted = max(0, min(call.keep, self.computed, len(prompt) - 1))
        self.context = [*prompt]
        return prompt

    def said(self) -> None:
        """The present call is over."""
        call = self.call
        self.context += call.say
        self.computed = len(self.context) - 1
        self.resumes = bool(call.tools)
        self.place += 1

    def skip(self) -> None:
        """Nobody makes the calls that are left of this job; a later job starts its context from there."""
        calls = self.session.calls
        while self.place < len(calls) and calls[self.place].tools:
            self._pass()
        if self.place < len(calls):
            self._pass()
        self.computed = 0

    def _pass(self) -> None:
        call = self.call
        self.context = [*self.context[: call.keep], *call.add, *call.say]
        self.place += 1

    @property
    def left(self) -> float:
        """What is left of the job from the present call on, alone on a device: its steps without its pauses."""
        return self._left[self.place - self._first]

    def _alone(self, costs: Costs) -> float:
        """The time of the job with the device to itself and nothing ever lost: its steps, and its tools' pauses."""
        length, at, pauses = len(self.context), self.place, 0.0
        calls, steps = self.session.calls, []
        while at < len(calls):
            call = calls[at]
            size = call.keep + len(call.add)
            known = min(call.keep, length, size - 1)
            steps.append(alone(costs, known * self.granule, size * self.granule, call.out))
            length = size + len(call.say)
            at += 1
            if not call.tools or at == len(calls):
                break
            pauses += call.pause
        self._first, self._left = self.place, list(accumulate(reversed(steps)))[::-1]
        return self._left[0] + pauses
