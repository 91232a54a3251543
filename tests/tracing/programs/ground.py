"""The ground truth of a program: what its code did, where LangGraph says it ran, and which spans came of it.

Bodies of nodes, tools and models open spans ("probes") by OpenTelemetry's API alone. Where they run is told by
LangGraph's own callback runs: a handler in the configuration of each call notes the tree of them, and each body
finds its run in the configuration it is given. So executions are told apart by LangGraph's ids, never by names.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.callbacks.base import BaseCallbackHandler
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanContext

Way = Literal["sync", "async"]
Sort = Literal["chain", "tool", "model"]
Kind = Literal["graph", "node", "tool", "model"]


@dataclass(slots=True)
class Run:
    """A callback run, as LangChain told of it."""

    id: UUID
    above: UUID | None
    sort: Sort
    name: str
    tags: tuple[str, ...]
    metadata: Mapping[str, Any]
    call: int
    node: bool = False
    """Whether it is an attempt at a task."""
    failed: bool = False

    @property
    def place(self) -> str:
        """Where in the graphs it ran: names and task ids, as LangGraph writes them."""
        return str(self.metadata.get("langgraph_checkpoint_ns", ""))


@dataclass(slots=True)
class Probe:
    """A span that a body opened with OpenTelemetry's API alone."""

    key: str
    run: UUID | None
    """The callback run in whose body it was opened."""
    outer: Probe | None
    """The probe within which it was opened, if any."""
    span: SpanContext
    attempt: int | None
    """Which attempt LangGraph says it is, where it says so."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a graph by the program."""

    above: SpanContext
    """The caller's span, invalid for none."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A check that did not pass."""

    check: str
    text: str


@dataclass(slots=True)
class Wanted:
    """What a program says of its spans beyond what can be known without it."""

    links: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Probe key of an execution -> those of the executions that started it."""
    resumed: dict[int, tuple[SpanContext | int, str]] = field(default_factory=dict)
    """Number of a call -> the call it takes up (or its span elsewhere), and why."""
    late: set[str] = field(default_factory=set)
    """Keys of probes that may outlive what they were opened in."""
    failed: set[str] = field(default_factory=set)
    """Keys of probes that ended with an exception."""
    failing: list[tuple[Kind, str]] = field(default_factory=list)
    """What failed, by kind and name, though its callbacks tell of a cancellation."""


class Tally(SpanProcessor):
    """Keeps the spans that began and those that ended."""

    def __init__(self) -> None:
        self.began: dict[int, Span] = {}
        self.ended: dict[int, ReadableSpan] = {}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.began[_id(span)] = span

    def on_end(self, span: ReadableSpan) -> None:
        self.ended[_id(span)] = span


class Ground:
    """What a program is given: it opens its spans by it, calls its graphs by it, and says what it expects."""

    def __init__(self, way: Way, adapter: Any = None) -> None:
        self.way = way
        self.adapter = adapter
        """None while the program runs without a tracer."""
        self.tally = Tally()
        self.provider = TracerProvider()
        self.provider.add_span_processor(self.tally)
        self.tracer = self.provider.get_tracer("a program")
        self.runs: dict[UUID, Run] = {}
        self.probes: list[Probe] = []
        self.calls: list[Call] = []
        self.wanted = Wanted()
        self.faults: list[Fault] = []
        self.given_up = False
        """Whether LangGraph told of something that was cancelled or closed."""
        self._lock = threading.Lock()

    # What bodies do.

    @contextmanager
    def probe(self, key: str, where: Any = None) -> Iterator[None]:
        """A span of a body. `where`: the configuration, the callbacks or the run manager that the body was given;
        `MODEL`: the model call that began last in this context; None: as the probe around."""
        outer = _PROBE.get()
        run = (None if outer is None else outer.run) if where is None else _run(where)
        with self.tracer.start_as_current_span(f"probe {key}") as span:
            found = Probe(key, run, outer, span.get_span_context(), _attempt(where))
            with self._lock:
                self.probes.append(found)
            _PROBE.set(found)
            try:
                yield
            except BaseException:
                self.wanted.failed.add(key)
                raise
            finally:
                _PROBE.set(outer)  # no token: a generator may be closed from elsewhere

    def node(self, name: str, then: Callable[[Any], Any] | None = None, *, key: str = "") -> Callable[..., Any]:
        """The body of a node, sync or async as the program's way is. `then` gives its update; may be a coroutine."""
        told: Callable[[Any], Any] = (lambda state: {"seen": [name]}) if then is None else then

        def body(state: Any, config: RunnableConfig) -> Any:
            with self.probe(key or name, config):
                return told(state)

        async def abody(state: Any, config: RunnableConfig) -> Any:
            with self.probe(key or name, config):
                await asyncio.sleep(0)
                found = told(state)
                return await found if asyncio.iscoroutine(found) else found

        chosen = body if self.way == "sync" else abody
        chosen.__name__ = name
        return chosen

    # How a program calls its graphs.

    def config(self, given: Mapping[str, Any] | None = None) -> Any:
        """The configuration of a call, with the handler that notes what LangGraph says of it."""
        self.calls.append(Call(trace.get_current_span().get_span_context()))
        told = Told(self, len(self.calls) - 1)
        # Some instrumentors are handlers themselves, which every call must be given.
        handlers = [told, *getattr(self.adapter, "callbacks", ()), *(given or {}).get("callbacks", [])]
        return {**(given or {}), "callbacks": handlers}

    @contextmanager
    def outside(self, moment: str = "after a call") -> Iterator[None]:
        """Round what must leave the caller's current span as it is."""
        before = trace.get_current_span()
        try:
            yield
        finally:
            self.same(before, moment)

    def same(self, before: trace.Span, moment: str) -> None:
        now = trace.get_current_span()
        if now is not before and now.get_span_context() != before.get_span_context():
            self.faults.append(Fault("caller", f"{moment} the current span is {getattr(now, 'name', now)}"))

    def run(self, graph: Any, given: Any, config: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """`invoke`, or `ainvoke` in an event loop of its own."""
        with self.outside():
            if self.way == "sync":
                return graph.invoke(given, self.config(config), **more)
            return asyncio.run(self.arun(graph, given, config, **more))

    async def arun(self, graph: Any, given: Any, config: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """`ainvoke`."""
        with self.outside():
            return await graph.ainvoke(given, self.config(config), **more)

    def stream(self, graph: Any, given: Any, config: Mapping[str, Any] | None = None, **more: Any) -> Iterator[Any]:
        """`stream`, looking at the caller's span between items; closing it closes the graph's."""
        before = trace.get_current_span()
        inner = graph.stream(given, self.config(config), **more)
        try:
            for item in inner:
                self.same(before, "between items")
                yield item
        finally:
            inner.close()
            self.same(before, "after a stream")

    async def astream(
        self, graph: Any, given: Any, config: Mapping[str, Any] | None = None, **more: Any
    ) -> AsyncIterator[Any]:
        """`astream`, likewise; other tasks made between items must see the caller's span too."""
        before = trace.get_current_span()

        async def other() -> None:
            self.same(before, "in another task between items")

        inner = graph.astream(given, self.config(config), **more)
        try:
            async for item in inner:
                self.same(before, "between items")
                await asyncio.create_task(other())
                yield item
        finally:
            await inner.aclose()
            self.same(before, "after a stream")

    def items(self, graph: Any, given: Any, config: Mapping[str, Any] | None = None, **more: Any) -> list[Any]:
        """All items of a stream, in the program's way."""
        if self.way == "sync":
            return list(self.stream(graph, given, config, **more))

        async def read() -> list[Any]:
            return [item async for item in self.astream(graph, given, config, **more)]

        return asyncio.run(read())

    # What a program says of its spans.

    def linked(self, key: str, *starters: str) -> None:
        """Executions with this probe were started by those with these probes, and by no other."""
        self.wanted.links[key] = starters

    def resumed(self, call: int, earlier: SpanContext | int, why: str) -> None:
        """The call takes up an earlier one."""
        self.wanted.resumed[call] = (earlier, why)

    def late(self, *keys: str) -> None:
        """These probes may outlive what they were opened in."""
        self.wanted.late.update(keys)


class Told(BaseCallbackHandler):
    """Notes the callback runs of one call."""

    run_inline = True

    def __init__(self, ground: Ground, call: int) -> None:
        self._ground = ground
        self._call = call

    def on_chain_start(self, serialized: Any, inputs: Any, **told: Any) -> None:
        self._note("chain", serialized, told)

    def on_tool_start(self, serialized: Any, input_str: str, **told: Any) -> None:
        self._note("tool", serialized, told)

    def on_chat_model_start(self, serialized: Any, messages: Any, **told: Any) -> None:
        self._note("model", serialized, told)
        _MODEL.set(told["run_id"])  # models that stream are given no run manager

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **told: Any) -> None:
        self._failed(run_id, error)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **told: Any) -> None:
        self._failed(run_id, error)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **told: Any) -> None:
        self._failed(run_id, error)

    def on_tool_end(self, output: Any, *, run_id: UUID, **told: Any) -> None:
        if isinstance(output, ToolMessage) and output.status == "error":
            self._ground.runs[run_id].failed = True

    def _note(self, sort: Sort, serialized: Any, told: Mapping[str, Any]) -> None:
        name = told.get("name") or (serialized or {}).get("name") or "?"
        run = Run(
            told["run_id"],
            told.get("parent_run_id"),
            sort,
            str(name),
            tuple(told.get("tags") or ()),
            dict(told.get("metadata") or {}),
            self._call,
        )
        run.node = sort == "chain" and self._task(run)
        self._ground.runs[run.id] = run

    def _task(self, run: Run) -> bool:
        """LangGraph tags what it planned; what was called by a task it does not, but it says where that is."""
        if "langsmith:hidden" in run.tags:
            return False
        above = None if run.above is None else self._ground.runs.get(run.above)
        called = called_by_a_task(run.metadata.get("langgraph_path", ()))
        return any(each.startswith("graph:step:") for each in run.tags) or (
            called and above is not None and above.place != run.place
        )

    def _failed(self, run: UUID, error: BaseException) -> None:
        given_up = isinstance(error, (asyncio.CancelledError, GeneratorExit))
        self._ground.given_up = self._ground.given_up or given_up
        self._ground.runs[run].failed = not given_up and not isinstance(error, GraphBubbleUp)


def _id(span: ReadableSpan) -> int:
    context = span.get_span_context()
    return 0 if context is None else context.span_id


def called_by_a_task(path: Any) -> bool:
    """Whether LangGraph's path of a task leads through another one."""
    return len(path) > 1 and isinstance(path[1], tuple | list)


def _run(where: Any) -> UUID | None:
    if where is MODEL:
        return _MODEL.get()
    manager = where.get("callbacks") if isinstance(where, dict) else where
    # A manager for children names the body's run as their parent; a run manager has it as its own.
    children = isinstance(manager, BaseCallbackManager)
    found = getattr(manager, "parent_run_id" if children else "run_id", None)
    return found if isinstance(found, UUID) else None


def _attempt(where: Any) -> int | None:
    runtime = where.get("configurable", {}).get("__pregel_runtime") if isinstance(where, dict) else None
    return getattr(getattr(runtime, "execution_info", None), "node_attempt", None)


MODEL = object()
_MODEL: ContextVar[UUID | None] = ContextVar("model", default=None)
_PROBE: ContextVar[Probe | None] = ContextVar("probe", default=None)
