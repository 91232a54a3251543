"""How the peers' spans are read, so that the tracer's own programs can judge them, each under its own names.

A peer's span says whether it is a model's or a tool's. Of the rest, few say whether they are a graph's or a node's:
that is taken from their names and from what is above them, in the peer's favour wherever two readings are possible.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from sostenuto.tests.tracing.programs import Spoken
from sostenuto.tests.tracing.programs.adapters import Promise
from sostenuto.tests.tracing.programs.ground import Ground
from sostenuto.tests.tracing.programs.truth import Truth

from .instrumentors import (
    GENAI,
    LANGFUSE,
    LANGSMITH,
    LOONGSUITE,
    NONE,
    OPENINFERENCE,
    OPENLIT,
    OPENLLMETRY,
    SPLUNK,
    Instrumentor,
    use,
)

Sort = Literal["chain", "model", "tool"]
Said = tuple[Sort, str]
Read = Callable[[ReadableSpan, Any], Said | None]
"""A span and its attributes, to what it says: a chain is a graph, a node, or anything else that LangChain runs."""


class Peer:
    """An adapter, in the words of the programs, for somebody else's instrumentor."""

    promises: frozenset[Promise] = frozenset()
    foreign = True
    """Spans as LangChain's callbacks tell: one for each attempt at a node, none round them; of all runnables."""

    def __init__(self, instrumentor: Instrumentor, attribute: str, read: Read) -> None:
        self.instrumentor = instrumentor
        self.name = instrumentor.name
        self.spec = f"{__name__}:{attribute}"
        self.callbacks: Sequence[Any] = ()
        self._read = read

    def start(self, provider: TracerProvider) -> Callable[[], object]:
        """Switches it on, for good: what is given back only waits for its spans. Once in a process."""
        os.environ.update(self.instrumentor.variables)
        on = use(self.instrumentor, provider)
        self.callbacks = on.callbacks
        return on.flush

    def read(self, span: ReadableSpan) -> Spoken | None:
        """Nothing: see `reader`."""
        return None

    def links(self, span: ReadableSpan, why: Literal["trigger", "resume"]) -> list[int]:
        """None: nobody promises them."""
        return []

    def reader(self, ground: Ground) -> Callable[[ReadableSpan], Spoken | None]:
        """What reads the spans of a program that has run."""
        spans = ground.tally.ended
        said = {id: self._read(span, span.attributes or {}) for id, span in spans.items() if _theirs(span)}
        above = {id: span.parent.span_id for id, span in spans.items() if span.parent is not None}
        found = _Kinds(ground, {id: each for id, each in said.items() if each is not None}, above)
        return lambda span: found.of(_id(span))


class _Kinds:
    """What the spans of a program stand for."""

    def __init__(self, ground: Ground, said: dict[int, Said], above: dict[int, int]) -> None:
        self._said = said
        self._above = above
        self._below = {each for id, each in above.items() if id in said}
        truth = Truth(ground)
        self._nodes = {run.name for run in truth.runs.values() if run.node}
        self._graphs = {run.name for run in truth.graphs}
        self._found: dict[int, Spoken | None] = {}

    def of(self, id: int) -> Spoken | None:
        if id not in self._found:
            self._found[id] = self._judged(id)
        return self._found[id]

    def _judged(self, id: int) -> Spoken | None:
        if id not in self._said:
            return None
        sort, name = self._said[id]
        if sort != "chain":
            return Spoken(sort, name)
        above = self._chain_above(id)
        outer = None if above is None else self.of(above)
        node, graph = name in self._nodes, name in self._graphs
        if graph and id not in self._below and self._twin(id, name, above):
            return None  # a second span for the same run, beside the first
        if node and graph:  # a graph that is a node bears its name twice
            return Spoken("graph" if outer is None or outer.kind == "node" else "node", name)
        if outer is not None and outer.name == name and self._above.get(id) in self._said:
            return None  # a second span for the same run, or the node's own function, right under the first
        return Spoken("node", name) if node else Spoken("graph", name) if graph else None

    def _chain_above(self, id: int) -> int | None:
        """The nearest span of a graph or a node above."""
        above = self._above.get(id)
        while above is not None and ((found := self.of(above)) is None or found.kind not in ("graph", "node")):
            above = self._above.get(above)
        return above

    def _twin(self, id: int, name: str, above: int | None) -> bool:
        """Whether there is another one that has spans below it, in the same place."""
        others = (each for each, said in self._said.items() if each != id and said == ("chain", name))
        return any(each in self._below and self._chain_above(each) == above for each in others)


def _theirs(span: ReadableSpan) -> bool:
    return span.instrumentation_scope is None or span.instrumentation_scope.name != "a program"


def _id(span: ReadableSpan) -> int:
    return 0 if span.context is None else span.context.span_id


def _none(span: ReadableSpan, told: Any) -> Said | None:
    return None


def _openinference(span: ReadableSpan, told: Any) -> Said | None:
    kind = told.get("openinference.span.kind")
    return ("model" if kind == "LLM" else "tool" if kind == "TOOL" else "chain"), span.name


def _langfuse(span: ReadableSpan, told: Any) -> Said | None:
    kind = told.get("langfuse.observation.type")
    return ("model" if kind == "generation" else "tool" if kind == "tool" else "chain"), span.name


def _langsmith(span: ReadableSpan, told: Any) -> Said | None:
    kind = told.get("langsmith.span.kind")
    return ("model" if kind == "llm" else "tool" if kind == "tool" else "chain"), span.name


def _by_operation(span: ReadableSpan, told: Any) -> Said | None:
    """Those who speak as the GenAI conventions do, or nearly."""
    operation, rest = told.get("gen_ai.operation.name"), span.name.partition(" ")[2]
    if operation in ("chat", "text_completion", "generate_content"):
        return "model", rest
    if operation == "execute_tool":
        return "tool", str(told.get("gen_ai.tool.name", rest))
    if operation in ("create_agent", "goto"):
        return None  # nothing runs
    name = told.get("gen_ai.step.name") or told.get("gen_ai.workflow.name") or rest
    return "chain", str(name)


def _openllmetry(span: ReadableSpan, told: Any) -> Said | None:
    if "traceloop.span.kind" not in told:
        return _by_operation(span, told)
    kind, name = told["traceloop.span.kind"], str(told.get("traceloop.entity.name"))
    return ("tool" if kind == "tool" else "chain"), name


NOBODY = Peer(NONE, "NOBODY", _none)
OF_OPENINFERENCE = Peer(OPENINFERENCE, "OF_OPENINFERENCE", _openinference)
OF_OPENLLMETRY = Peer(OPENLLMETRY, "OF_OPENLLMETRY", _openllmetry)
OF_GENAI = Peer(GENAI, "OF_GENAI", _by_operation)
OF_LANGFUSE = Peer(LANGFUSE, "OF_LANGFUSE", _langfuse)
OF_LANGSMITH = Peer(LANGSMITH, "OF_LANGSMITH", _langsmith)
OF_LOONGSUITE = Peer(LOONGSUITE, "OF_LOONGSUITE", _by_operation)
OF_OPENLIT = Peer(OPENLIT, "OF_OPENLIT", _by_operation)
OF_SPLUNK = Peer(SPLUNK, "OF_SPLUNK", _by_operation)
ADAPTERS = (
    *(NOBODY, OF_OPENINFERENCE, OF_OPENLLMETRY, OF_GENAI, OF_LANGFUSE),
    *(OF_LANGSMITH, OF_LOONGSUITE, OF_OPENLIT, OF_SPLUNK),
)
