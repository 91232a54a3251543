"""The checks: spans against the ground truth, execution by execution. Each has a name; a fault says what is wrong.

Of all instrumentors: `trace` (no orphans), `ended` (each span once), `graph`, `nodes`, `tool`, `model` (as many as ran,
by name), `probe` (what a node does stands under that very execution), `inside` (what a tool or a model does, likewise),
`ancestors` (the whole line upwards), `nested` (user spans stay in order), `caller` (its span stays current, and is the
parent), `status` (errors where something failed, and nowhere else), `within` (children end before parents), `logs`,
`result`. Of those that promise it: `task`, `superstep`, `attempt`, `visit`, `links`, `resume`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from .adapters import Adapter
from .ground import Fault, Ground, Probe
from .promises import kept
from .truth import Key, Seen, Truth, foreign, named

_LINE = ("graph", "node", "tool", "model")


def check(ground: Ground, adapter: Adapter) -> list[Fault]:
    """Everything that is wrong with the spans of a program that has run; `logs` and `result` are judged elsewhere."""
    truth, seen = Truth(ground), Seen(ground, adapter)
    faults = [*ground.faults, *_whole(ground, seen), *_counted(truth, seen)]
    spans: dict[Key, int] = {}
    for probe in ground.probes:
        faults += _placed(truth, seen, probe, spans)
    faults += _status(truth, seen, ground)
    faults += _callers(truth, seen, ground, spans)
    return [*faults, *kept(truth, seen, ground, spans)]


def _whole(ground: Ground, seen: Seen) -> Iterator[Fault]:
    for id, begun in ground.tally.began.items():
        if id not in seen.spans:
            yield Fault("ended", f"{begun.name} was never ended")
    said = [probe.span.span_id for probe in ground.probes if probe.key in ground.wanted.late]
    late = {id for each in said for id in (each, *seen.up(each))}
    for id, span in seen.spans.items():
        if span.parent is None:
            continue
        above = seen.spans.get(span.parent.span_id)
        if above is None:
            if span.parent.span_id not in ground.tally.began and not span.parent.is_remote:
                yield Fault("trace", f"{span.name} has a parent that never was")
            continue
        if above.context is not None and span.context is not None and above.context.trace_id != span.context.trace_id:
            yield Fault("trace", f"{span.name} is in another trace than {above.name}")
        if id not in late and not _lies(span, above):
            yield Fault("within", f"{span.name} does not lie within {above.name}")


def _lies(span: ReadableSpan, above: ReadableSpan) -> bool:
    return (above.start_time or 0) <= (span.start_time or 0) and (span.end_time or 0) <= (above.end_time or 0)


def _counted(truth: Truth, seen: Seen) -> Iterator[Fault]:
    """As many spans as executions, by name."""
    ran = {
        "graph": Counter(run.name for run in truth.graphs),
        "node": Counter(runs[0].name for runs in truth.attempts.values()),
        "tool": Counter(run.name for run in truth.runs.values() if run.sort == "tool"),
        "model": Counter("" for run in truth.runs.values() if run.sort == "model"),
    }
    for kind, expected in ran.items():
        found = Counter("" if kind == "model" else seen.said[id].name for id in seen.of(kind))
        if found != expected:
            check = "nodes" if kind == "node" else kind
            yield Fault(check, f"ran {dict(expected)}, spans {dict(found)}")


def _placed(truth: Truth, seen: Seen, probe: Probe, spans: dict[Key, int]) -> Iterator[Fault]:
    """Whether a probe stands under what it ran in; fills in which span each execution has."""
    id = probe.span.span_id
    if probe.outer is not None and probe.outer.span.span_id not in seen.up(id):
        yield Fault("nested", f"{probe.key} does not stand under {probe.outer.key}")
    wanted = truth.line(probe.run)
    if not wanted:
        return
    found = seen.line(id, *_LINE)
    names = [(seen.said[each].kind, "" if seen.said[each].kind == "model" else seen.said[each].name) for each in found]
    kinds = [(seen.said[each].kind, each) for each in found]
    nearest = next((each for kind, each in reversed(kinds) if kind == "node"), None)
    node = next((run for run in reversed(wanted) if run.node), None)
    if node is not None:
        if nearest is None or seen.said[nearest].name != node.name:
            yield Fault(
                "probe", f"{probe.key} ran in node {node.name}, its span is under {nearest and seen.name(nearest)}"
            )
        else:
            yield from _claim(truth.key(node), nearest, spans, f"{probe.key} of {node.name}", "probe")
    if truth.kind(wanted[-1]) in ("tool", "model"):
        inner = found[-1] if found else None
        if inner is None or names[-1] != named(truth, wanted)[-1]:
            yield Fault(
                "inside", f"{probe.key} ran in {wanted[-1].name}, its span is under {inner and seen.name(inner)}"
            )
    if names != named(truth, wanted):
        yield Fault("ancestors", f"{probe.key} ran in {named(truth, wanted)}, its span is in {names}")
        return
    for run, span in zip(wanted, found, strict=True):
        yield from _claim(truth.key(run), span, spans, f"{run.name}, above {probe.key},", "ancestors")


def _claim(key: Key, span: int, spans: dict[Key, int], what: str, check: str) -> Iterator[Fault]:
    if spans.setdefault(key, span) != span:
        yield Fault(check, f"{what} has two spans")
    elif sum(each == span for each in spans.values()) > 1:
        yield Fault(check, f"the span of {what} is another execution's too")


def _status(truth: Truth, seen: Seen, ground: Ground) -> Iterator[Fault]:
    wanted: Counter[tuple[str, str]] = Counter(ground.wanted.failing)
    for runs in truth.attempts.values():
        wanted["node", runs[0].name] += runs[-1].failed
    for run in truth.runs.values():
        if not run.node and (kind := truth.kind(run)) is not None:
            wanted[kind, "" if kind == "model" else run.name] += run.failed
    found: Counter[tuple[str, str]] = Counter()
    probes = {probe.span.span_id for probe in ground.probes}
    for id, span in seen.spans.items():
        if span.status.status_code is not StatusCode.ERROR or id in probes:
            continue
        said = seen.said.get(id)
        if said is None and foreign(seen.adapter):
            continue  # of a runnable that is none of these kinds, and may well have failed
        if said is None or said.kind == "superstep":
            yield Fault("status", f"{span.name} is an error")
        elif said.kind != "attempt":
            found[said.kind, "" if said.kind == "model" else said.name] += 1
    # What was given up has not failed, but whoever calls it an error is not wrong to.
    wrong = +wanted - found if ground.given_up and foreign(seen.adapter) else found != +wanted
    if wrong:
        yield Fault("status", f"failed: {dict(+wanted)}, errors: {dict(found)}")


def _callers(truth: Truth, seen: Seen, ground: Ground, spans: dict[Key, int]) -> Iterator[Fault]:
    """The span of a graph that the program called stands right under the caller's, or begins a trace."""
    for run in truth.graphs:
        span = spans.get(truth.key(run))
        if span is None or not truth.called(run):
            continue
        caller, parent = ground.calls[run.call].above, next(seen.up(span), 0)
        while foreign(seen.adapter) and parent in seen.spans and parent not in (caller.span_id, *seen.said):
            parent = next(seen.up(parent), 0)  # of a runnable round the graph
        if parent != caller.span_id:
            yield Fault("caller", f"the caller of {run.name} is not its parent")
