"""The checks of what an instrumentor may promise beyond spans in the right place: steps, attempts, visits, links."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from .ground import Fault, Ground, Run
from .truth import Key, Seen, Truth

Spans = Mapping[Key, int]


def kept(truth: Truth, seen: Seen, ground: Ground, spans: Spans) -> Iterator[Fault]:
    """What is promised and not so."""
    promised = seen.adapter.promises
    if "task" in promised:
        yield from _tasks(truth, seen, spans)
    if "superstep" in promised:
        yield from _steps(truth, seen, spans)
    if "attempt" in promised:
        yield from _attempts(truth, seen, ground, spans)
    if "visit" in promised:
        yield from _visits(truth, seen)
    if "links" in promised:
        yield from _links(truth, seen, ground, spans)
    if "resume" in promised:
        yield from _resumed(truth, seen, ground, spans)


def _tasks(truth: Truth, seen: Seen, spans: Spans) -> Iterator[Fault]:
    """A node's span tells its task, place, step, path and triggers as LangGraph does."""
    ran = Counter(_identity(runs[0]) for runs in truth.attempts.values())
    found: Counter[tuple[Any, ...]] = Counter()
    for each in seen.of("node"):
        said = seen.said[each]
        found[said.name, said.place, said.task, said.step, said.path, said.triggers] += 1
    if ran != found:
        yield Fault("task", f"ran {ran - found}, spans {found - ran}")
    for key, runs in truth.attempts.items():
        if key in spans and seen.said[spans[key]].place != runs[0].place:
            yield Fault("task", f"{runs[0].name} ran in {runs[0].place}, its span says {seen.said[spans[key]].place}")


def _identity(run: Run) -> tuple[Any, ...]:
    told = run.metadata
    task = run.place.rpartition(":")[2]
    triggers = tuple(told.get("langgraph_triggers", ()))
    return (
        run.name,
        run.place,
        task,
        told.get("langgraph_step"),
        _spelled(tuple(told.get("langgraph_path", ()))[:3]),
        triggers,
    )


def _spelled(path: Any) -> str:
    return "/".join(f"({_spelled(each)})" if isinstance(each, tuple | list) else str(each) for each in path)


def _called(path: str | None) -> bool:
    """Whether a task was called from inside another one, not planned by the graph."""
    return "(" in (path or "")


def _steps(truth: Truth, seen: Seen, spans: Spans) -> Iterator[Fault]:
    """One span for each step of a graph run, with all that ran in it below, and nothing else."""
    steps: dict[tuple[int | None, int | None], set[int]] = defaultdict(set)
    for id in seen.of("node"):
        said = seen.said[id]
        if _called(said.path):
            continue
        above = next(seen.up(id), None)
        step = seen.said.get(above) if above is not None else None
        if above is None or step is None or step.kind != "superstep" or step.step != said.step:
            yield Fault("superstep", f"{said.name} of step {said.step} stands under {step}")
            continue
        graph = next(seen.up(above), None)
        if graph is None or graph not in seen.said or seen.said[graph].kind != "graph":
            yield Fault("superstep", f"step {said.step} does not stand under a graph")
        steps[graph, said.step].add(above)
    planned = {
        (truth.graph(runs[0]).id, runs[0].metadata.get("langgraph_step"))
        for runs in truth.attempts.values()
        if not _called(_identity(runs[0])[4])
    }
    found = seen.of("superstep")
    if any(len(each) > 1 for each in steps.values()) or len(found) != len(planned):
        yield Fault("superstep", f"{len(planned)} steps ran, {len(found)} spans in {len(steps)} places")


def _attempts(truth: Truth, seen: Seen, ground: Ground, spans: Spans) -> Iterator[Fault]:
    """A node's span says how often it was tried; with more than one try, each has a span of its own."""
    for key, runs in truth.attempts.items():
        if key in spans and seen.said[spans[key]].attempt != len(runs):
            yield Fault("attempt", f"{runs[0].name} had {len(runs)} attempts, its span says {seen.said[spans[key]]}")
    for probe in ground.probes:
        run = None if probe.run is None else ground.runs.get(probe.run)
        if run is None or not run.node:
            continue
        runs = truth.attempts[truth.key(run)]
        number = runs.index(run) + 1
        if probe.attempt is not None and probe.attempt != number:
            yield Fault("attempt", f"{probe.key} is attempt {probe.attempt} to LangGraph, and {number} here")
        tries = [seen.said[each].attempt for each in seen.line(probe.span.span_id, "attempt", "node")[-1:]]
        if len(runs) > 1 and tries != [number]:
            yield Fault("attempt", f"{probe.key} ran in attempt {number}, its span is in {tries}")
    failed = sum(run.failed for runs in truth.attempts.values() for run in runs if len(runs) > 1)
    marked = sum(
        seen.spans[each].status.status_code.name == "ERROR"
        for each in seen.of("attempt")
        if len([sibling for sibling in seen.of("attempt") if _parent(seen, sibling) == _parent(seen, each)]) > 1
    )
    if failed != marked:
        yield Fault("attempt", f"{failed} of several attempts failed, {marked} are marked")


def _parent(seen: Seen, id: int) -> int | None:
    return next(seen.up(id), None)


def _visits(truth: Truth, seen: Seen) -> Iterator[Fault]:
    """How many times a node has run in this run; what runs in one step is one visit."""
    steps: dict[tuple[Any, str], list[int]] = defaultdict(list)
    ran: Counter[tuple[str, str, int]] = Counter()
    for runs in truth.attempts.values():
        graph, run = truth.graph(runs[0]).id, runs[0]
        of = steps[graph, run.name]
        step = int(run.metadata.get("langgraph_step", -1))
        if step not in of:
            of.append(step)
        ran[run.name, run.place, len(of)] += 1
    found = Counter(
        (said.name, said.place or "", said.visit or 0) for said in seen.said.values() if said.kind == "node"
    )
    if ran != found:
        yield Fault("visit", f"ran {ran - found}, spans {found - ran}")


def _links(truth: Truth, seen: Seen, ground: Ground, spans: Spans) -> Iterator[Fault]:
    """What started a node: an earlier node of the same run, and exactly those that the program says."""
    first: dict[int | None, int] = {}
    for id in seen.of("node"):
        graph, step = next(iter(seen.line(id, "graph")[::-1]), None), seen.said[id].step or 0
        first[graph] = min(step, first.get(graph, step))
    for id in seen.of("node"):
        said, graph = seen.said[id], next(iter(seen.line(id, "graph")[::-1]), None)
        links = seen.adapter.links(seen.spans[id], "trigger")
        for each in links:
            other = seen.said.get(each)
            if other is None or other.kind != "node" or seen.line(each, "graph")[-1:] != [graph]:
                yield Fault("links", f"{said.name} is linked to {other}, which is no node of its run")
            elif (other.step or 0) >= (said.step or 0):
                yield Fault("links", f"{said.name} is linked to {other.name}, which ran no earlier")
        if not links and not _called(said.path) and (said.step or 0) > first[graph]:
            yield Fault("links", f"{said.name} of step {said.step} has no link to what started it")
    where: dict[tuple[str, int], set[int]] = defaultdict(set)
    for probe in ground.probes:
        run = None if probe.run is None else ground.runs.get(probe.run)
        if run is not None and run.node and (span := spans.get(truth.key(run))) is not None:
            where[probe.key, run.call].add(span)
    for key, starters in ground.wanted.links.items():
        found = {call: ids for (each, call), ids in where.items() if each == key}
        if not found:
            yield Fault("links", f"{key} has no span")
        for call, id in ((call, id) for call, ids in found.items() for id in ids):
            wanted = {span for each in starters for span in where[each, call]}
            if set(seen.adapter.links(seen.spans[id], "trigger")) != wanted:
                yield Fault("links", f"{key} is not linked to exactly {starters}")


def _resumed(truth: Truth, seen: Seen, ground: Ground, spans: Spans) -> Iterator[Fault]:
    """A run links to the one it takes up, and says why it does."""
    called = [run for run in truth.graphs if truth.called(run)]
    found = sorted((each for each in seen.of("graph") if not seen.line(each, "graph")), key=seen.began_at)
    # A run in which no body was entered is known by its turn.
    roots = {run.call: spans.get(truth.key(run), span) for run, span in zip(called, found, strict=False)}
    for call, (earlier, why) in ground.wanted.resumed.items():
        span = roots.get(call)
        goal = roots.get(earlier) if isinstance(earlier, int) else earlier.span_id
        if span is None or goal is None:
            yield Fault("resume", f"call {call} or {earlier} has no span")
            continue
        if seen.adapter.links(seen.spans[span], "resume") != [goal] or seen.said[span].resumed != why:
            yield Fault("resume", f"call {call} ({seen.said[span].resumed}) does not lead to {earlier} ({why})")
