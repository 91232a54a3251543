"""How an instrumentor is switched on, and how its spans are told apart. One small object each; here is ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from sostenuto.tracing import instrument

Kind = Literal["graph", "superstep", "node", "attempt", "model", "tool"]
Promise = Literal["task", "superstep", "attempt", "links", "resume", "visit"]
"""What goes beyond spans in the right place. An instrumentor is judged on what it promises, and on all of the rest."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a span says of itself. Only kind and name are needed; the rest serves the promises."""

    kind: Kind
    name: str
    step: int | None = None
    task: str | None = None
    place: str | None = None
    """LangGraph's checkpoint namespace."""
    path: str | None = None
    triggers: tuple[str, ...] = ()
    visit: int | None = None
    attempt: int | None = None
    """Of an attempt: which one. Of a node: how many there were."""
    resumed: str | None = None


class Adapter(Protocol):
    """An instrumentor, as the checks see it."""

    name: str
    spec: str
    """`module:attribute` of this very object, for programs that go on in another process."""
    promises: frozenset[Promise]

    def start(self, provider: TracerProvider) -> Callable[[], None]:
        """Switches it on for this provider; what it returns switches it off, with its wrappers taken out."""
        ...

    def read(self, span: ReadableSpan) -> Spoken | None:
        """What a span says; None for one that is none of these kinds."""
        ...

    def links(self, span: ReadableSpan, why: Literal["trigger", "resume"]) -> list[int]:
        """The ids of the spans to which it links as to what started it, or as to the run it takes up."""
        ...


_KINDS: dict[str, Kind] = {
    "invoke_workflow": "graph",
    "invoke_agent": "graph",
    "run_step": "node",
    "execute_tool": "tool",
    "chat": "model",
}


class Ours:
    """Our own tracer."""

    name = "sostenuto"
    spec = "sostenuto.tests.tracing.programs.adapters:OURS"
    promises: frozenset[Promise] = frozenset({"task", "superstep", "attempt", "links", "resume", "visit"})

    def start(self, provider: TracerProvider) -> Callable[[], None]:
        return instrument(provider)

    def read(self, span: ReadableSpan) -> Spoken | None:
        if span.instrumentation_scope is None or span.instrumentation_scope.name != "sostenuto":
            return None
        said: Any = span.attributes or {}
        first, _, rest = span.name.partition(" ")
        if first == "superstep":
            return Spoken("superstep", rest, step=said["langgraph.step"])
        if first == "attempt":
            return Spoken("attempt", rest, attempt=said["langgraph.attempt"])
        kind = _KINDS.get(str(said.get("gen_ai.operation.name")))
        return None if kind is None else _spoken(kind, rest, said)

    def links(self, span: ReadableSpan, why: Literal["trigger", "resume"]) -> list[int]:
        kinds = {"trigger": ("trigger",), "resume": ("resume", "previous")}[why]
        return [each.context.span_id for each in span.links if (each.attributes or {}).get("sostenuto.link") in kinds]


def _spoken(kind: Kind, name: str, said: Any) -> Spoken:
    return Spoken(
        kind,
        name,
        step=said.get("langgraph.step"),
        task=said.get("langgraph.task.id"),
        place=said.get("langgraph.checkpoint_ns"),
        path=said.get("langgraph.path"),
        triggers=tuple(said.get("langgraph.triggers", ())),
        visit=said.get("langgraph.visit"),
        attempt=said.get("langgraph.attempts"),
        resumed=said.get("langgraph.resumed"),
    )


OURS = Ours()
