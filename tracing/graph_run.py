"""One run of a graph: its steps, the visits of its nodes, and who wrote what started them.

All of it lives in the frame of the run's generator and in the OpenTelemetry context under it, so it goes when
the run goes; there is no table of runs.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, Tracer

from . import names
from .content import Policies, policies
from .guarded import end
from .meters import Watch
from .names import Facts, Value
from .spans import RUN, Active, in_conversation, start, tell

MOST_LINKS = 64
"""A node has at most this many links of a kind; `langgraph.links` says how many there were."""

_PUSH = "__pregel_push"  # what a sent task says triggered it
_SENDS = "__pregel_tasks"  # and the channel that its sender wrote


class Visit(NamedTuple):
    """One task of one superstep: a node about to run."""

    node: str
    task: str
    step: int
    path: str
    """Where the task comes from: by an edge, or which one of the step's sends."""
    triggers: tuple[str, ...]
    checkpoint_ns: str
    sent: int | None = None
    """For a send: the identity of its argument, by which its sender is found."""


class Wrote(NamedTuple):
    """A node wrote to a channel that may start others."""

    channel: str
    by: str
    """The node."""
    goal: str | None = None
    """For a send: the node it starts."""
    sent: int | None = None


class GraphRun:
    """The span of a graph run and what its nodes need to know of each other."""

    def __init__(
        self,
        span: Span,
        tracer: Tracer,
        *,
        conversation: str | None,
        channels: Container[str],
        supersteps: bool,
        timed: Watch,
    ) -> None:
        self.policies: Policies = policies()  # of the node in which this run was begun
        self.keeps = False
        """Whether its result is to be recorded."""
        self.result: object = None
        self.timed = timed
        self.span = span
        self.tracer = tracer
        self.channels = channels
        """Those that may start a node."""
        self.interrupted = False
        self.checkpoint: str | None = None
        """The last one that it left, if it leaves any."""
        self.cached: list[str] = []
        """Nodes that did not run because the cache had their results."""
        self._conversation = conversation
        self._supersteps = supersteps
        self._lock = threading.Lock()  # tasks of one step start in many threads
        self._step: _Step | None = None
        self._steps = 0
        self._inside: tuple[Context, Context] | None = None  # the run's context under an ambient one, until it closes
        self._visits: dict[str, tuple[int, int]] = {}  # node -> (the step of its last visit, visits so far)
        self._before: dict[tuple[str, str], tuple[int, SpanContext, SpanContext | None]] = {}
        self._written: dict[str, _Channel] = {}

    def context(self) -> Context:
        """The context in which the run's own code works: its span current, this run to be found."""
        ambient = otel.get_current()
        if self._inside is None or self._inside[0] is not ambient:
            under = trace.set_span_in_context(self.span, ambient)
            self._inside = ambient, otel.set_value(RUN, self, in_conversation(under, self._conversation))
        return self._inside[1]

    def active(self) -> Active:
        """Makes the run's context current within a `with`."""
        return Active(self.context())

    def start(self, visit: Visit) -> Span:
        """The span of a node about to run, under its superstep, or under the task that called for it."""
        ambient = trace.get_current_span()
        with self._lock:
            # A task called from inside another one stands under it, not beside it.
            called = ambient is not self.span and ambient.get_span_context() != self.span.get_span_context()
            parent = ambient if called else self._superstep(visit)
            above = None if parent is ambient else parent.get_span_context()
            links = self._links(visit)
            span = start(
                f"{names.RUN_STEP} {visit.node}",
                self._facts(visit, len(links)),
                parent=above,
                tracer=self.tracer,
                links=links[:MOST_LINKS],
            )
            self._remember(visit, span.get_span_context())
        return span

    def ended(self, visit: Visit, span: Span, wrote: Iterable[Wrote]) -> None:
        """Notes what a node wrote, for the links of those it starts, and when its step was last at work."""
        with self._lock:
            for write in wrote:
                log = self._written.setdefault(write.channel, _Channel())
                log.writes.append((visit.step, write, span.get_span_context()))
            # Only spans that are recorded know when they ended.
            end = getattr(span, "end_time", None)
            if self._step is not None and self._step.number == visit.step and isinstance(end, int):
                self._step.last_end = max(self._step.last_end or 0, end)

    def close(self, status: str, error: str | None = None) -> None:
        """Ends the step that is open and the run; `error` is the `error.type` of a run that failed."""
        with self._lock:
            self._end_step()
        self._inside = None  # it leads back here
        tell(self.span, {names.GRAPH_STEPS: self._steps, names.GRAPH_STATUS: status, **self._left()})
        end(self.span)
        self.timed.end(error)

    def _left(self) -> Facts:
        found: dict[str, Value] = {}
        if self.checkpoint is not None:
            found[names.GRAPH_CHECKPOINT_END] = self.checkpoint
        if self.cached:
            found[names.GRAPH_CACHED] = tuple(self.cached)
        return found

    def _superstep(self, visit: Visit) -> Span:
        if self._step is None or self._step.number != visit.step:
            self._end_step()
            self._steps += 1
            span = self.span
            if self._supersteps:
                namespace = visit.checkpoint_ns.rpartition("|")[0]
                facts: Facts = {names.GRAPH_STEP: visit.step, names.GRAPH_CHECKPOINT_NS: namespace}
                # Nobody called for the visit, so the ambient span is the run's: no parent need be given.
                span = start(f"{names.SUPERSTEP} {visit.step}", facts, tracer=self.tracer)
            self._step = _Step(visit.step, span)
        self._step.nodes.append(visit.node)
        return self._step.span

    def _end_step(self) -> None:
        step, self._step = self._step, None
        if step is not None and step.span is not self.span:
            tell(step.span, {names.GRAPH_STEP_TASKS: len(step.nodes), names.GRAPH_STEP_NODES: tuple(step.nodes)})
            end(step.span, step.last_end)

    def _facts(self, visit: Visit, links: int) -> Facts:
        facts: dict[str, Value] = {
            names.OPERATION: names.RUN_STEP,
            names.STEP_NAME: visit.node,
            names.GRAPH_NODE: visit.node,
            names.GRAPH_STEP: visit.step,
            names.GRAPH_TASK: visit.task,
            names.GRAPH_TRIGGERS: visit.triggers,
            names.GRAPH_CHECKPOINT_NS: visit.checkpoint_ns,
            names.GRAPH_PATH: visit.path,
            names.GRAPH_VISIT: self._count(visit),
            **names.conversation(self._conversation),
        }
        return facts if links <= MOST_LINKS else facts | {names.GRAPH_LINKS: links}

    def _count(self, visit: Visit) -> int:
        # Siblings sent to one node in one step share a visit: their order in time means nothing.
        step, count = self._visits.get(visit.node, (None, 0))
        if step != visit.step:
            count += 1
            self._visits[visit.node] = (visit.step, count)
        return count

    def _links(self, visit: Visit) -> list[Link]:
        found: dict[int, Link] = {}  # by span id, for contexts do not hash; a trigger goes before a visit
        for trigger in visit.triggers:
            channel = self._written.get(_SENDS if trigger == _PUSH else trigger)
            for write, writer in () if channel is None else channel.writers(visit):
                found[writer.span_id] = Link(writer, {names.LINK: "trigger", names.GRAPH_NODE: write.by})
        before = self._previous(visit)
        if before is not None:
            found.setdefault(before.span_id, Link(before, {names.LINK: "visit"}))
        return list(found.values())

    def _previous(self, visit: Visit) -> SpanContext | None:
        step, last, earlier = self._before.get((visit.node, visit.path), (None, None, None))
        return earlier if step == visit.step else last

    def _remember(self, visit: Visit, span: SpanContext) -> None:
        self._before[visit.node, visit.path] = (visit.step, span, self._previous(visit))


def current_run() -> GraphRun | None:
    """The graph run in whose context this code works, if any."""
    found = otel.get_value(RUN)
    return found if isinstance(found, GraphRun) else None


def spelled(path: tuple[Any, ...]) -> str:
    """LangGraph's path of a task as text: `/` between its parts, what is inside a part in brackets."""
    return "/".join([f"({spelled(each)})" if isinstance(each, tuple) else str(each) for each in path])


@dataclass(slots=True)
class _Step:
    number: int
    span: Span
    nodes: list[str] = field(default_factory=list)
    last_end: int | None = None


@dataclass(slots=True)
class _Channel:
    """Who wrote to a channel since it last started something."""

    writes: list[tuple[int, Wrote, SpanContext]] = field(default_factory=list)
    read_in: int | None = None
    fresh: Sequence[tuple[Wrote, SpanContext]] = ()

    def writers(self, visit: Visit) -> Sequence[tuple[Wrote, SpanContext]]:
        if self.read_in != visit.step:
            # Consumed now: what was written before this step starts nothing later.
            self.fresh = [(write, span) for step, write, span in self.writes if step < visit.step]
            self.writes = [each for each in self.writes if each[0] >= visit.step]
            self.read_in = visit.step
        if visit.sent is None:
            return self.fresh
        goal = [(write, span) for write, span in self.fresh if write.goal == visit.node]
        exact = [(write, span) for write, span in goal if write.sent == visit.sent]
        return exact or goal
