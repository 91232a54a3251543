"""One trace as a tree for the terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from . import names
from .records import Record


def render_tree(spans: Iterable[Record], trace_id: str | None = None) -> str:
    """One trace as lines: name, duration, the facts worth a look.

    Without `trace_id` the last trace to begin is shown. Spans stand in the order in which they began; one
    whose parent is not among the spans stands at the top, marked `(parent elsewhere)`. An unknown trace gives
    "".
    """
    found = sorted(spans, key=lambda span: (span.start, span.span_id))
    if trace_id is None:
        begun: dict[str, int] = {}
        for span in found:
            begun.setdefault(span.trace_id, span.start)
        trace_id = max(begun, key=lambda each: begun[each], default=None)
    chosen = [span for span in found if span.trace_id == trace_id]
    known = {span.span_id for span in chosen}
    below: dict[str | None, list[Record]] = defaultdict(list)
    for span in chosen:
        below[span.parent_id if span.parent_id in known else None].append(span)
    rows: list[tuple[str, Record]] = []
    # A trace may be deeper than Python's stack: a stack of our own, last child first.
    waiting = [("", "", root) for root in reversed(below[None])]
    while waiting:
        mark, indent, span = waiting.pop()
        rows.append((f"{mark}{span.name}{_elsewhere(span, known)}", span))
        waiting.extend(reversed(_children(below[span.span_id], indent)))
    width = max((len(label) for label, _ in rows), default=0)
    return "\n".join(f"{label:<{width}}  {_duration(span)}  {_facts(span)}".rstrip() for label, span in rows)


def _children(children: Sequence[Record], indent: str) -> list[tuple[str, str, Record]]:
    last = len(children) - 1
    return [
        (f"{indent}{'└─' if at == last else '├─'} ", f"{indent}{'   ' if at == last else '│  '}", child)
        for at, child in enumerate(children)
    ]


def _elsewhere(span: Record, known: set[str]) -> str:
    return " (parent elsewhere)" if span.parent_id is not None and span.parent_id not in known else ""


def _duration(span: Record) -> str:
    seconds = span.seconds
    return f"{seconds:7.2f} s " if seconds >= 1 else f"{seconds * 1000:7.1f} ms"


def _facts(span: Record) -> str:
    told = span.attributes
    words = [f"{label} {_short(told[key])}" for key, label in _TOLD if told.get(key) not in (None, "", "none", "done")]
    if int(told.get(names.GRAPH_VISIT, 1)) > 1:
        words.append(f"visit {told[names.GRAPH_VISIT]}")
    words += sorted({event.name for event in span.events if event.name in _EVENTS})
    if span.status == "error":
        words.append(f"ERROR {told.get(names.ERROR_TYPE, span.message)}")
    return ", ".join(words)


def _short(value: object) -> object:
    """Fractions of seconds to three digits: nobody reads more in a terminal."""
    return f"{value:.3g}" if isinstance(value, float) else value


_TOLD = (
    (names.KV_HIT_TOKENS, "reused"),
    (names.KV_COMPUTED_TOKENS, "computed"),
    (names.INPUT_TOKENS, "in"),
    (names.OUTPUT_TOKENS, "out"),
    (names.KV_TIER, "tier"),
    (names.QUEUE_SECONDS, "queued s"),
    (names.HOLD_WHY, "held:"),
    (names.GRAPH_ATTEMPT, "attempt"),
    (names.GRAPH_RESUMED, "resumed"),
    (names.GRAPH_STATUS, "status"),
    (names.OUTCOME, "outcome"),
)
_EVENTS = (names.EVENT_INTERRUPT, names.EVENT_HANDOFF, names.EVENT_DRAINED)
