"""One trace as a tree for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from . import names
from .records import Event, LinkTo, Record, family, traces


def render_tree(spans: Iterable[Record], trace_id: str | None = None, *, width: int | None = None) -> str:
    """One trace as lines: name, duration, the facts worth a look.

    Without `trace_id` the last trace to begin is shown. Spans stand in the order in which they began; one
    whose parent is not among the spans stands at the top, marked `(parent elsewhere)`. An unknown trace gives
    "". Given a `width`, no line is longer: names and facts are cut, and say so by an ellipsis. What is not
    printable is escaped: whoever names a span has no say over the terminal.
    """
    found = traces(spans)
    if trace_id is None:
        trace_id = next(reversed(found), None)
    forest = _Forest(found, found.get(trace_id or "", []))
    return "\n".join(_fitted(forest.rows(), width))


def printable(text: str) -> str:
    """Text that does nothing to a terminal: line breaks, escapes, marks of direction and the like as `\\n`, `\\x1b`."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


class _Forest:
    """The spans of one trace by their parents, and all spans by their ids, so that links can be named."""

    def __init__(self, found: Mapping[str, Sequence[Record]], chosen: Sequence[Record]) -> None:
        self._all = {(each.trace_id, each.span_id): each for spans in found.values() for each in spans}
        self._roots, self._below = family(chosen)
        for siblings in self._below.values():
            siblings.sort(key=lambda span: (span.start, span.end))  # a restore before the prefill that it opens

    def rows(self) -> list[tuple[str, str, str]]:
        """Label, duration and facts of every span, from the top down."""
        rows: list[tuple[str, str, str]] = []
        # A trace may be deeper than Python's stack: a stack of our own, last child first.
        waiting = [("", "", root) for root in reversed(self._roots)]
        while waiting:
            mark, indent, span = waiting.pop()
            lost = span.parent_id is not None and self._above(span) is None
            told = [*self._pointers(span), *_facts(span)]
            label = f"{mark}{span.name}{' (parent elsewhere)' if lost else ''}"
            rows.append((printable(label), _duration(span), printable(", ".join(told))))
            waiting.extend(reversed(_children(self._below[span.span_id], indent)))
        return rows

    def _above(self, span: Record) -> Record | None:
        return self._all.get((span.trace_id, span.parent_id or ""))

    def _pointers(self, span: Record) -> list[str]:
        """What its links say, in words. That it was begun by one span, or came round again, is seen anyway."""
        words: list[str] = []
        joined: list[str] = []
        for link in span.links:
            match link.attributes.get(names.LINK):
                case "visit":
                    continue
                case "trigger":
                    joined.append(self._name(link))
                case "hold":
                    words.append(f"resumes {self._name(link)}{self._place(link)}")
                case "resume" | "previous" as why:
                    words.append(f"{why}s {self._name(link)}{self._trace(span, link)}".replace("previouss", "follows"))
                case why:
                    label = f"{why} " if why else ""
                    words.append(f"links to {label}{self._name(link)}{self._trace(span, link) or self._place(link)}")
        if len(joined) > 1:
            words.append(f"joins {_listed(joined)}")
        return words

    def _name(self, link: LinkTo) -> str:
        target = self._all.get((link.trace_id, link.span_id))
        return f"span {link.span_id[:8]}, which is not here" if target is None else target.name

    def _trace(self, span: Record, link: LinkTo) -> str:
        return "" if link.trace_id == span.trace_id else f" of trace {link.trace_id[:8]}"

    def _place(self, link: LinkTo) -> str:
        """Where the span pointed to stands: its step and node if a graph is above it, else its parent."""
        target = self._all.get((link.trace_id, link.span_id))
        parent = above = None if target is None else self._above(target)
        passed: set[str] = set()  # broken ids may make a ring of parents
        while above is not None and above.span_id not in passed:
            passed.add(above.span_id)
            if (step := above.attributes.get(names.GRAPH_STEP)) is not None:
                node = above.attributes.get(names.GRAPH_NODE)
                return f" of step {step}" + (f", {node}" if node else "")
            above = self._above(above)
        return "" if parent is None else f" of {parent.name}"


def _children(children: Sequence[Record], indent: str) -> list[tuple[str, str, Record]]:
    last = len(children) - 1
    return [
        (f"{indent}{'└─' if at == last else '├─'} ", f"{indent}{'   ' if at == last else '│  '}", child)
        for at, child in enumerate(children)
    ]


def _fitted(rows: Sequence[tuple[str, str, str]], width: int | None) -> list[str]:
    """Lines of three columns. Where there is little room the labels get half of it at most."""
    longest = max((len(label) for label, _, _ in rows), default=0)
    if width is not None:
        spare = width - _DURATION - 4
        wanted = max((len(facts) for _, _, facts in rows), default=0)
        longest = max(8, min(longest, max(spare // 2, spare - wanted)))
    lines: list[str] = []
    for label, duration, facts in rows:
        line = f"{_cut_label(label, longest):<{longest}}  {duration}  {facts}".rstrip()
        lines.append(line if width is None else _cut(line, max(width, 1)))
    return lines


def _cut_label(label: str, room: int) -> str:
    """A label in so many columns: of a deep one's branches the outer ones go first, then the end of its name."""
    if len(label) <= room:
        return label
    name = label.lstrip("│├└─ ")
    branches = label[: len(label) - len(name)]
    left = max(room - len(name), room // 2)
    if len(branches) > left:
        branches = "…" + branches[len(branches) - left + 1 :]
    return _cut(branches + name, room)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1].rstrip() + "…"


def _duration(span: Record) -> str:
    seconds = span.seconds
    return f"{seconds:7.2f} s " if seconds >= 1 else f"{seconds * 1000:7.1f} ms"


def _facts(span: Record) -> list[str]:
    told = span.attributes
    words = [f"{_label(span, key)} {_short(told[key])}" for key in _TOLD if _worth(span, key)]
    if names.KV_HIT_TOKENS not in told and told.get(names.CACHE_READ) is not None:
        words.insert(0, f"reused {told[names.CACHE_READ]}")  # others' models, by the standard name
    if (visit := told.get(names.GRAPH_VISIT, 1)) != 1:
        words.append(f"visit {visit}")
    words += _events(span.events)
    if span.status == "error":
        words.append(f"ERROR {told.get(names.ERROR_TYPE, span.message)}".rstrip())
    return words


def _worth(span: Record, key: str) -> bool:
    if key == names.QUEUE_SECONDS and span.name == names.QUEUE:
        return False  # it is the span's duration
    found = span.attributes.get(key)
    if key == names.KV_TIER and found == "device":
        return False  # where contexts usually are
    return found not in (None, "", "none", "done") and not (found == 0 and key in _RARE)


def _label(span: Record, key: str) -> str:
    """A hold's why is why it ended."""
    return "ended:" if key == names.KV_WHY and span.name == names.KV_HOLD else _TOLD[key]


def _events(events: Sequence[Event]) -> list[str]:
    """Each kind of event once, with how often and why; a failure's and a stream's are said otherwise."""
    counted = Counter(event.name for event in events if event.name not in _PLAIN)
    why = {event.name: str(event.attributes.get(names.KV_WHY, "")) for event in events}
    return [
        f"{name}{f' {count}x' if count > 1 else ''}{f' ({why[name]})' if why[name] else ''}"
        for name, count in sorted(counted.items())
    ]


def _listed(found: Sequence[str]) -> str:
    """Names in their order, equal ones counted."""
    return ", ".join(name if count == 1 else f"{count}x {name}" for name, count in Counter(found).items())


def _short(value: object) -> object:
    """Fractions of seconds to three digits: nobody reads more in a terminal."""
    return f"{value:.3g}" if isinstance(value, float) else value


_TOLD = {
    names.KV_HIT_TOKENS: "reused",
    names.KV_COMPUTED_TOKENS: "computed",
    names.KV_RECOMPUTED_TOKENS: "again",
    names.KV_WHY: "why:",
    names.INPUT_TOKENS: "in",
    names.OUTPUT_TOKENS: "out",
    names.PREFILL_TOKENS: "tokens",
    names.DECODE_TOKENS: "tokens",
    names.FORCED_TOKENS: "forced",
    names.KV_TOKENS: "tokens",
    names.KV_BLOCKS: "blocks",
    names.KV_TIER: "tier",
    names.QUEUE_SECONDS: "queued s",
    names.HOLD_WHY: "held:",
    names.GRAPH_ATTEMPT: "attempt",
    names.GRAPH_RESUMED: "resumed",
    names.GRAPH_STATUS: "status",
    names.OUTCOME: "outcome",
}
_RARE = (names.KV_RECOMPUTED_TOKENS, names.FORCED_TOKENS)
"""Not worth a word where they are 0."""
_PLAIN = ("exception", names.EVENT_FIRST_CHUNK)
_DURATION = len("   0.0 ms")
