"""What a trace comes to: where its time went, what was computed twice, how its holds ended."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from . import names
from .records import Record, family, traces

KINDS = ("constrain", "decode", "prefill", "kv", "model", "tool", "queue", "held", "other", "idle")
"""What a moment can be counted for, and which comes first where several go on at once: work before waiting.

`kv` is contexts being moved; `model` the rest of a model call, or all of one that tells no more; `held` a held
context while nothing before it goes on; `other` what else has a span (nodes, graphs, a user's own); `idle` a
gap between the runs of one trace, without any span.
"""


@dataclass(frozen=True, slots=True)
class Share:
    """The time of one kind, in nanoseconds."""

    kind: str
    wall: int
    """Of the wall clock: each moment of the trace is counted once, for the first of `KINDS` that goes on at it."""
    total: int
    """Over all spans of the kind: what goes on at the same time is counted as often as it goes on."""
    spans: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of all model calls of a trace; of a call within a call, as a client's and its server's, the inner."""

    calls: int = 0
    asked: int = 0
    said: int = 0
    reused: int = 0
    computed: int = 0
    """Of prompts, those computed twice included; 0 where nobody told."""
    again: Mapping[str, int] = field(default_factory=dict)
    """Computed though they had been computed before, by why."""


@dataclass(frozen=True, slots=True)
class Holds:
    """Contexts kept while tools ran."""

    count: int = 0
    tokens: int = 0
    time: int = 0
    """Nanoseconds, of all together."""
    resumed: int = 0
    """Those that some span of the trace links to as taken up."""
    ended: Mapping[str, int] = field(default_factory=dict)
    """How many, by why they ended."""


@dataclass(frozen=True, slots=True)
class Move:
    """What happened to contexts besides, under one name, such as `kv.restore`, `kv.evict` or `preempt`."""

    count: int
    tokens: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Summary:
    """One trace."""

    trace_id: str
    name: str
    """Of its first span."""
    time: int
    """Nanoseconds from its first span's start to the last one's end: the sum of all `wall`."""
    spans: int
    errors: int
    shares: tuple[Share, ...]
    """In the order of `KINDS`, without those of which there is none."""
    tokens: Tokens
    holds: Holds
    moves: Mapping[str, Move]


def summarize(spans: Iterable[Record], trace_id: str | None = None) -> Summary:
    """Adds up one trace: by default the last to begin. Raises `KeyError` if there is none of this id.

    A span's time is what its children leave of it, so that nothing is counted for a call and again for what was
    done in it; a hold is not work, and takes no time from the call that it stands under.
    """
    found = traces(spans)
    if trace_id is None:
        trace_id = next(reversed(found), "")
    chosen = found[trace_id]
    tree = _Tree(chosen)
    return Summary(
        trace_id=trace_id,
        name=chosen[0].name,
        time=max(span.end for span in chosen) - chosen[0].start,
        spans=len(chosen),
        errors=sum(span.status == "error" for span in chosen),
        shares=_shares(tree),
        tokens=_tokens(tree),
        holds=_holds(chosen),
        moves=_moves(chosen),
    )


class _Tree:
    """A trace's spans, what stands under each, and what each one's time is counted for."""

    def __init__(self, spans: Sequence[Record]) -> None:
        self.spans = spans
        roots, self.below = family(spans)
        self.kinds: dict[str, str] = {}
        waiting = [(span, "other") for span in roots]
        while waiting:
            span, above = waiting.pop()
            # What has no kind of its own, such as a request that a tool makes, is part of what it stands in.
            kind = self.kinds[span.span_id] = _kind(span) or ("other" if above == "held" else above)
            waiting += [(child, kind) for child in self.below[span.span_id]]

    def under(self, span: Record) -> Iterator[Record]:
        """Everything below a span."""
        waiting = list(self.below[span.span_id])
        while waiting:
            yield (one := waiting.pop())
            waiting += self.below[one.span_id]


def _kind(span: Record) -> str | None:
    """By our engine's names and by the attributes of the conventions, for traces of whatever made them."""
    if span.scope == names.SCOPE:
        if span.name in _ENGINE:
            return _ENGINE[span.name]
        if span.name.startswith("kv."):
            return "kv"
    told = str(span.attributes.get(names.OPERATION) or span.attributes.get("openinference.span.kind", ""))
    return _OPERATIONS.get(told)


def _shares(tree: _Tree) -> tuple[Share, ...]:
    total: Counter[str] = Counter()
    count: Counter[str] = Counter()
    turns: list[tuple[int, int, int]] = []  # when, which kind begins or ends, and by how much
    for span in tree.spans:
        kind = tree.kinds[span.span_id]
        count[kind] += 1
        at = KINDS.index(kind)
        work = (child for child in tree.below[span.span_id] if tree.kinds[child.span_id] != "held")
        for start, end in _left(span, work):
            total[kind] += end - start
            turns += [(start, at, 1), (end, at, -1)]
    wall = _swept(turns)
    count["idle"] = 0
    total["idle"] = wall["idle"]
    return tuple(Share(kind, wall[kind], total[kind], count[kind]) for kind in KINDS if total[kind])


def _left(span: Record, children: Iterable[Record]) -> Iterator[tuple[int, int]]:
    """The stretches of a span in which none of its children went on."""
    at = span.start
    for start, end in sorted((max(child.start, span.start), min(child.end, span.end)) for child in children):
        if start >= end:
            continue
        if start > at:
            yield at, start
        at = max(at, end)
    if at < span.end:
        yield at, span.end


def _swept(turns: list[tuple[int, int, int]]) -> Counter[str]:
    """The wall clock, moment by moment."""
    wall: Counter[str] = Counter()
    going = [0] * len(KINDS)
    turns.sort()
    before = turns[0][0] if turns else 0
    for when, at, change in turns:
        if when > before:
            kind = next((kind for kind, many in zip(KINDS, going, strict=True) if many), "idle")
            wall[kind] += when - before
            before = when
        going[at] += change
    return wall


def _tokens(tree: _Tree) -> Tokens:
    calls = asked = said = reused = computed = 0
    again: Counter[str] = Counter()
    for span in tree.spans:
        below = list(tree.under(span)) if _model(span) else []
        if not _model(span) or any(_model(one) for one in below):
            continue
        told = span.attributes
        calls += 1
        asked += _count(told, names.INPUT_TOKENS)
        said += _count(told, names.OUTPUT_TOKENS)
        found = _count(told, names.KV_HIT_TOKENS) if names.KV_HIT_TOKENS in told else _count(told, names.CACHE_READ)
        reused += found
        if names.KV_COMPUTED_TOKENS in told:
            computed += _count(told, names.KV_COMPUTED_TOKENS)
        elif names.CACHE_READ in told:
            computed += _count(told, names.INPUT_TOKENS) - found
        again += _again(span, below)
    return Tokens(calls, asked, said, reused, computed, dict(again.most_common()))


def _again(call: Record, below: Sequence[Record]) -> Counter[str]:
    """Tokens computed twice: those lost before the call, as its restore says, and what the call adds to them."""
    found: Counter[str] = Counter()
    for one in below:
        if one.scope == names.SCOPE and one.name.startswith("kv."):
            found[str(one.attributes.get(names.KV_WHY, "unknown"))] += _count(
                one.attributes, names.KV_RECOMPUTED_TOKENS
            )
    more = _count(call.attributes, names.KV_RECOMPUTED_TOKENS) - found.total()
    if more > 0:
        preempted = any(event.name == names.PREEMPT for one in (call, *below) for event in one.events)
        found["preempted" if preempted else str(call.attributes.get(names.KV_WHY, "unknown"))] += more
    return +found


def _holds(spans: Sequence[Record]) -> Holds:
    holds = [span for span in spans if span.scope == names.SCOPE and span.name == names.KV_HOLD]
    taken = {link.span_id for span in spans for link in span.links if link.attributes.get(names.LINK) == "hold"}
    return Holds(
        count=len(holds),
        tokens=sum(_count(hold.attributes, names.KV_TOKENS) for hold in holds),
        time=sum(hold.end - hold.start for hold in holds),
        resumed=sum(hold.span_id in taken for hold in holds),
        ended=dict(Counter(str(hold.attributes.get(names.KV_WHY, "unknown")) for hold in holds).most_common()),
    )


def _moves(spans: Sequence[Record]) -> dict[str, Move]:
    found: dict[str, list[Mapping[str, object]]] = defaultdict(list)
    for span in spans:
        if span.scope != names.SCOPE:
            continue
        if span.name.startswith("kv.") and span.name != names.KV_HOLD:
            found[span.name].append(span.attributes)
        for event in span.events:
            if event.name.startswith("kv.") or event.name == names.PREEMPT:
                found[event.name].append(event.attributes)
    return {
        name: Move(
            len(told),
            sum(_count(one, names.KV_TOKENS) for one in told),
            sum(_count(one, names.KV_BLOCKS) for one in told),
        )
        for name, told in sorted(found.items())
    }


def _model(span: Record) -> bool:
    return _kind(span) == "model"


def _count(told: Mapping[str, object], key: str) -> int:
    found = told.get(key, 0)
    return int(found) if isinstance(found, int | float) else 0


_ENGINE = {
    names.QUEUE: "queue",
    names.PREFILL: "prefill",
    names.DECODE: "decode",
    names.CONSTRAIN: "constrain",
    names.KV_HOLD: "held",
}
_OPERATIONS = {
    names.CHAT: "model",
    "text_completion": "model",
    "generate_content": "model",
    "LLM": "model",
    names.EXECUTE_TOOL: "tool",
    "TOOL": "tool",
}
