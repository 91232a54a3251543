"""The life of every context as spans: it waits, is computed, speaks; is held, let go, taken up again.

Everything is told on the loop's thread, under the model call that the turn belongs to. A hold outlives its call: its
span ends when the hold does, and the turn that takes the context up links to it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from itertools import takewhile

from ..scheduler import Closed, Event, Hold, Release, Start, Travelled, lease_key
from ..tracing import (
    Happened,
    Open,
    Place,
    TurnNumbers,
    Value,
    begin_span,
    hold_ended,
    names,
    off,
    record_turn,
    tell_span,
    type_name,
)
from ..tracing import held as count_held
from .engines import StepEngine, TurnEngine
from .passages import Incident, Passage
from .ticket import Facts
from .turn import Known, Turn

MOST_TOKENS = 1_000_000
"""Of past contexts, remembered to say what was computed twice: 8 MB, and the oldest go first."""


@dataclass(slots=True)
class _Past:
    """What a line of conversation had computed when its last turn ended."""

    tokens: Sequence[int]
    why: str
    """Why it may be gone by now."""
    hold: Place | None = None
    """Its last hold."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A hold that has not ended."""

    span: Open | None
    pages: int


class Lives:
    """Remembers what was held and computed, and tells of each turn when it is over.

    `zero` says when the loop's clock stood at zero, in nanoseconds since the epoch. It is asked once for whatever is
    told at once, so that what follows on each other does so without gaps.
    """

    def __init__(self, engine: StepEngine | TurnEngine, zero: Callable[[], int]) -> None:
        self._engine = engine
        self._zero = zero
        self._held: dict[str, _Held] = {}
        self._past: OrderedDict[str, _Past] = OrderedDict()
        self._size = 0
        self._travelled: dict[str, str] = {}
        self._ending: tuple[Turn, tuple[str, ...]]

    def heard(self, event: Event) -> None:
        """Something was reported from outside: perhaps a program's next turn goes on from an older checkpoint."""
        if isinstance(event, Travelled):
            self._travelled[event.program] = event.checkpoint
        elif isinstance(event, Closed):
            self._travelled.pop(event.program, None)

    def began(self, turn: Turn, start: Start) -> None:
        """What an earlier turn of this conversation had computed of the turn's prompt, and how it is taken up."""
        key = lease_key(turn.request.program, turn.request.branch if start.taken is None else start.taken)
        checkpoint = self._travelled.pop(turn.request.program, None)
        past = self._past.get(key)
        if past is None or not turn.job.tokens:
            return
        shared = _shared(past.tokens, turn.request.tokens[:-1])
        how = names.KV_FORK if key in self._held else names.KV_RESTORE
        if checkpoint is not None:
            how = names.KV_ROLLBACK
        turn.known = Known(shared, past.why, how, past.hold)

    def ends(self, turn: Turn, tools: Sequence[str], now: float) -> None:
        """A turn is about to end, by calling these tools if there are any: what follows may hold its context."""
        turn.passages.end(now)
        self._ending = (turn, tuple(tools))
        if turn.started and turn.job.tokens:
            self._remember(turn)

    def held(self, hold: Hold, now: float) -> None:
        """The context of the turn that ends stays. It may have to give way in the same moment."""
        turn, tools = self._ending
        span = None
        if turn.request.place is not None and not off():
            facts: dict[str, Value] = {
                names.PROGRAM: hold.program,
                names.TURN: hold.turn,
                names.KV_TOKENS: hold.tokens,
                names.KV_BLOCKS: hold.pages,
                names.KV_TIER: "device",
                names.HOLD_WHY: hold.why,
                names.HOLD_TOOLS: tools,
                names.HELD_UNTIL: self._zero() / 1e9 + hold.until,
                **_lossy(turn),
            }
            span = begin_span(names.KV_HOLD, facts, under=turn.request.place, begun=self._unix(now))
        key = lease_key(hold.program, hold.branch)
        self._held[key] = _Held(span, hold.pages)
        count_held(hold.pages)
        past = self._past.get(key)
        if past is not None:
            past.why, past.hold = hold.why, None if span is None else span.context

    def released(self, release: Release, now: float) -> None:
        """A hold is over: taken up by a turn, or given up."""
        key = lease_key(release.program, release.branch)
        held = self._held.pop(key, None)
        if held is not None:
            count_held(-held.pages)
            hold_ended(release.how)
        if (past := self._past.get(key)) is not None:
            past.why = release.why
        if held is None or held.span is None:
            return
        at = self._unix(now)
        lost = Happened(names.KV_DEMOTE, at, {names.KV_TOKENS: release.tokens, names.KV_WHY: release.why})
        facts = {names.KV_WHY: release.why}
        held.span.ended(facts, at=at, events=(lost,) if release.how in ("pressure", "expired", "parked") else ())

    def over(self, turn: Turn, came: Facts | BaseException) -> None:
        """A turn is over, with these facts, or without any because it failed."""
        facts = came if isinstance(came, Facts) else None
        record_turn(self._numbers(turn, came))
        if turn.request.place is None or off():
            return
        zero = self._zero()
        for passage in turn.passages.all:
            _tell(turn, passage, turn.request.place, zero)
        known = turn.known
        if facts is not None and known.tokens and (known.hold or facts.lost_tokens or known.how == names.KV_ROLLBACK):
            _tell_taken(turn, facts, turn.request.place, zero)

    def close(self, now: float) -> None:
        """The host is closed: nothing is held any more."""
        for held in self._held.values():
            count_held(-held.pages)
            if held.span is not None:
                held.span.ended({names.KV_WHY: "the host was closed"}, at=self._unix(now))
        self._held.clear()

    def _remember(self, turn: Turn) -> None:
        key = lease_key(turn.request.program, turn.request.branch)
        if (before := self._past.pop(key, None)) is not None:
            self._size -= len(before.tokens)
        self._past[key] = _Past(turn.job.tokens[:-1], "nobody held it")
        self._size += len(turn.job.tokens) - 1
        while self._size > MOST_TOKENS:
            _, oldest = self._past.popitem(last=False)
            self._size -= len(oldest.tokens)

    def _numbers(self, turn: Turn, came: Facts | BaseException) -> TurnNumbers:
        first = turn.passages.first_token
        numbers = TurnNumbers(
            self._engine.name,
            "sostenuto",
            turn.passages.seconds(),
            queued=turn.passages.seconds("queue"),
            first_token=first,
            error=None if isinstance(came, Facts | CancelledError) else type_name(came),
        )
        if not isinstance(came, Facts):
            if not (turn.started and self._engine.can.preempt):
                return numbers
            # It came to no end, but has found and computed all the same.
            rows = [one.rows for one in turn.passages.all if one.kind == "prefill"]
            return replace(numbers, hit=turn.reused, computed=rows[0], recomputed=sum(rows[1:]))
        later = turn.passages.seconds() - (first or 0.0)
        per_token = later / (came.said_tokens - 1) if first is not None and came.said_tokens > 1 else None
        numbers = replace(numbers, per_token=per_token, prompt=came.prompt_tokens, said=came.said_tokens)
        if not self._engine.can.cached:
            return numbers
        again = came.recomputed_tokens + came.lost_tokens
        return replace(
            numbers, hit=came.reused_tokens, computed=came.computed_tokens - came.lost_tokens, recomputed=again
        )

    def _unix(self, seconds: float) -> int:
        return _at(self._zero(), seconds)


def _tell(turn: Turn, passage: Passage, place: Place, zero: int) -> None:
    facts: dict[str, Value] = {names.TURN: turn.job.turn}
    if passage.why:
        facts[names.KV_WHY] = passage.why
    match passage.kind:
        case "queue":
            facts[names.QUEUE_SECONDS] = passage.ended - passage.begun
        case "prefill":
            facts[names.PREFILL_TOKENS] = passage.rows
        case "decode":
            facts[names.DECODE_TOKENS] = passage.said
            facts[names.FORCED_TOKENS] = passage.forced
    begun, ended = _at(zero, passage.begun), _at(zero, passage.ended)
    events = [_happened(incident, zero) for incident in passage.incidents]
    tell_span(passage.kind, facts, under=place, begun=begun, ended=ended, events=events)


def _tell_taken(turn: Turn, facts: Facts, place: Place, zero: int) -> None:
    known = turn.known
    at = _at(zero, next(one.begun for one in turn.passages.all if one.kind == "prefill"))
    told: dict[str, Value] = {
        names.KV_TOKENS: known.tokens,
        names.KV_HIT_TOKENS: min(known.tokens, facts.reused_tokens),
        names.KV_RECOMPUTED_TOKENS: facts.lost_tokens,
        names.KV_TIER: facts.tier,
        names.KV_WHY: facts.lost_why or facts.why,
        **_lossy(turn),
    }
    if not facts.exact:
        told[names.KV_CODEC] = facts.codec
    links = () if known.hold is None else ((known.hold, "hold"),)
    tell_span(known.how, told, under=place, begun=at, ended=at, links=links)


def _lossy(turn: Turn) -> dict[str, Value]:
    """What a span of a context says that was thinned."""
    return {names.KV_EXACT: False} if turn.request.remnant is not None else {}


def _happened(incident: Incident, zero: int) -> Happened:
    facts: dict[str, Value] = {names.KV_WHY: incident.why}
    if incident.pages:
        facts[names.KV_BLOCKS] = incident.pages
    return Happened(incident.what, _at(zero, incident.at), facts)


def _at(zero: int, seconds: float) -> int:
    return zero + int(seconds * 1e9)


def _shared(before: Sequence[int], now: Sequence[int]) -> int:
    """How many tokens both begin with."""
    if tuple(before) == tuple(now[: len(before)]):
        return len(before)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, now, strict=False)))
