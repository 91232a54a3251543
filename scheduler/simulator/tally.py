"""What is written down while a simulation runs: sums, one number for each job, and the timeline of a few sessions."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..books import Books
from ..effects import Refuse, Start
from ..events import ProgramId
from .line import Line

Kind = Literal["waiting", "computing", "recomputing", "speaking", "paused", "held", "moved", "preempted"]
"""What a session did. `held` lies beside the others; `moved` and `preempted` are moments."""

BUCKETS = 240
"""Of the share that was reused, over time."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Something that a session did, from one second to another."""

    kind: Kind
    begun: float
    ended: float


@dataclass(slots=True)
class Lane:
    """A session in the timeline."""

    name: str
    stretches: list[Stretch] = field(default_factory=list)
    kind: Kind | None = None
    since: float = 0.0
    held: float | None = None


class Shares:
    """Two sums over time, in buckets that grow wider as time goes on, so that there are never many."""

    def __init__(self, width: float = 1.0) -> None:
        self.width = width
        self._sums: dict[int, tuple[int, int]] = {}

    def add(self, at: float, part: int, whole: int) -> None:
        """So much of so much, at this second."""
        while at >= self.width * BUCKETS:
            self.width *= 2
            merged: dict[int, tuple[int, int]] = {}
            for number, (one, all_) in self._sums.items():
                before = merged.get(number // 2, (0, 0))
                merged[number // 2] = (before[0] + one, before[1] + all_)
            self._sums = merged
        number = int(at / self.width)
        one, all_ = self._sums.get(number, (0, 0))
        self._sums[number] = (one + part, all_ + whole)

    def points(self) -> list[tuple[float, float]]:
        """The middle of each bucket, and the share there."""
        ordered = sorted(self._sums.items())
        return [((number + 0.5) * self.width, part / whole) for number, (part, whole) in ordered if whole]


class Tally:
    """Told by the simulation what happens. Tokens are those of the trace. `lanes` sessions are in the timeline."""

    def __init__(self, granule: int = 1, *, lanes: int = 0) -> None:
        self.granule = granule
        self.jcts = array("d")
        """Seconds of each job that was done, from its first call to its last answer."""
        self.ideals = array("d")
        """What each would have taken alone, with nothing lost."""
        self.owners = array("l")
        """Whose it was: a place in `tenants`."""
        self.tenants: list[str] = []
        self.resumed = array("d")
        """Seconds from a tool's return to the first token."""
        self.sessions = self.calls = self.refusals = self.cut = self.preemptions = self.moves = 0
        self.prompt = self.reused = self.lost = self.again = self.said = self.moved_tokens = 0
        self.seconds = 0.0
        """When the last job was done."""
        self.busy = self.queued = self.held_token_s = self.used_token_s = 0.0
        self.shares = Shares()
        self.lanes: list[Lane] = []
        self._most = lanes
        self._last = 0.0
        self._since: dict[str, float] = {}
        self._by_program: dict[ProgramId, Lane] = {}
        self._places: dict[str, int] = {}

    @property
    def recomputed(self) -> int:
        """Tokens that were computed though they had been before: lost in a pause, or in a preemption."""
        return self.lost + self.again

    def heard(self, books: Books, now: float) -> None:
        """Time has passed up to here, with so many pages held and in use since the last time."""
        gone = now - self._last
        if gone > 0:
            size = books.page * self.granule * gone
            self.held_token_s += self._held * size
            self.used_token_s += self._used * size
            self._last = now
        self._held, self._used = books.held, books.room - books.available

    def came(self, line: Line, now: float) -> None:
        """A call came."""
        self.calls += 1
        self._lane(line, now)
        self._enter(line, "waiting", now)

    def started(self, line: Line, start: Start, now: float) -> None:
        """It starts, or starts again."""
        running = line.running
        if running.number == 0:
            self.queued += now - line.arrived
            lost = max(0, line.wanted - start.reuse) * self.granule
            self.prompt += running.known * self.granule
            self.reused += start.reuse * self.granule
            self.lost += lost
            self.shares.add(now, start.reuse, running.known)
        else:
            lost = max(0, running.computed - start.reuse) * self.granule
            self.again += lost
        self._enter(line, "recomputing" if lost else "computing", now)

    def preempted(self, line: Line, now: float) -> None:
        """It was taken out."""
        self.preemptions += 1
        self._moment(line, "preempted", now)
        self._enter(line, "waiting", now)

    def spoke(self, line: Line, now: float) -> None:
        """Its first token, since it was started."""
        if line.resumes and line.running.spoken == 1:
            self.resumed.append(now - line.arrived)
        self._enter(line, "speaking", now)

    def ended(self, line: Line, now: float) -> None:
        """It has said all."""
        self.said += line.running.out
        self._enter(line, "paused", now)

    def done(self, line: Line, now: float) -> None:
        """A job is done."""
        self.jcts.append(now - line.begun)
        self.ideals.append(line.ideal)
        self.owners.append(self._tenant(line.session.tenant))
        self.seconds = now
        self._enter(line, None, now)

    def refused(self, line: Line, refuse: Refuse, now: float) -> None:
        """A job will never be done."""
        self.refusals += 1
        self._enter(line, None, now)

    def held(self, program: ProgramId, now: float) -> None:
        """Its context stays."""
        lane = self._by_program.get(program)
        if lane is not None and lane.held is None:
            lane.held = now

    def released(self, program: ProgramId, now: float) -> None:
        """Its context is held no longer."""
        lane = self._by_program.get(program)
        if lane is not None and lane.held is not None:
            lane.stretches.append(Stretch("held", lane.held, now))
            lane.held = None

    def moved(self, line: Line | None, tokens: int, now: float) -> None:
        """A copy begins, of a context of this line if that is known."""
        self.moves += 1
        self.moved_tokens += tokens
        if line is not None:
            self._moment(line, "moved", now)

    def over(self, now: float) -> None:
        """Nothing happens any more."""
        for lane in self.lanes:
            _close(lane, now)
            if lane.held is not None:
                lane.stretches.append(Stretch("held", lane.held, now))

    _held = 0
    _used = 0

    def _tenant(self, name: str) -> int:
        place = self._places.setdefault(name, len(self.tenants))
        if place == len(self.tenants):
            self.tenants.append(name)
        return place

    def _lane(self, line: Line, now: float) -> None:
        if line.lane is None and line.place == 0 and len(self.lanes) < self._most:
            line.lane = len(self.lanes)
            lane = Lane(line.session.name)
            self.lanes.append(lane)
            self._by_program[line.program] = lane

    def _enter(self, line: Line, kind: Kind | None, now: float) -> None:
        if line.lane is not None:
            lane = self.lanes[line.lane]
            _close(lane, now)
            lane.kind, lane.since = kind, now

    def _moment(self, line: Line, kind: Kind, now: float) -> None:
        if line.lane is not None:
            self.lanes[line.lane].stretches.append(Stretch(kind, now, now))


def _close(lane: Lane, now: float) -> None:
    if lane.kind is not None and now > lane.since:
        lane.stretches.append(Stretch(lane.kind, lane.since, now))
    lane.kind = None


def quantile(values: Sequence[float], share: float) -> float:
    """Of ordered values, the one below which such a share lies, between neighbours in proportion; 0 of none."""
    if not values:
        return 0.0
    at = share * (len(values) - 1)
    low = int(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (at - low)
