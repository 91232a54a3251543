"""The wrappers round LangGraph's runs: a span with its `finally`, current only while the inside works.

A graph's generator is driven step by step, and its span is current only inside each step, so whoever consumes
the stream never sees it and may close it from another task. Nothing here keeps a value that flows through a
graph.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Container, Generator, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from langchain_core.runnables import RunnableConfig, ensure_config
from langgraph.pregel import Pregel

from . import names
from .adopt import Adopted
from .content import written
from .graph_resume import Origin, aorigin, origin, saver, signed
from .graph_run import GraphRun, current_run
from .graph_signals import QUIET, Switch, is_agent, signal
from .meters import watch
from .names import Value
from .options import in_use
from .spans import failure, note, start, tell, tracer

Graph = Pregel[Any, Any, Any, Any]


def traced_stream(stream: Callable[..., Generator[Any]], switch: Switch) -> Callable[..., Iterator[Any]]:
    """`Pregel.stream` with a span round the run."""

    def traced(self: Graph, input: object, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        merged = _merged(self, config)
        run = _start(self, merged, origin(self, input, merged), switch, input)
        inner = stream(self, input, _signed(self, config, merged, run, kwargs), **kwargs)
        with _ending(run):
            try:
                while True:
                    with run.active():
                        try:
                            chunk = next(inner)
                        except StopIteration:
                            return
                    _watch(run, chunk)
                    yield chunk
            finally:
                with run.active():
                    inner.close()

    @wraps(stream)
    def wrapper(self: Graph, *args: Any, **kwargs: Any) -> Iterator[Any]:
        return (stream if switch.idle() else traced)(self, *args, **kwargs)

    return wrapper


def traced_astream(astream: Callable[..., AsyncGenerator[Any]], switch: Switch) -> Callable[..., AsyncIterator[Any]]:
    """`Pregel.astream` with a span round the run."""

    async def traced(
        self: Graph, input: object, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        merged = _merged(self, config)
        run = _start(self, merged, await aorigin(self, input, merged), switch, input)
        inner = Adopted(astream(self, input, _signed(self, config, merged, run, kwargs), **kwargs))
        with _ending(run):
            try:
                while True:
                    with run.active():
                        try:
                            chunk = await inner.next()
                        except StopAsyncIteration:
                            return
                    _watch(run, chunk)
                    yield chunk
            finally:
                with run.active():
                    await inner.close()

    @wraps(astream)
    def wrapper(self: Graph, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        return (astream if switch.idle() else traced)(self, *args, **kwargs)

    return wrapper


@contextmanager
def _ending(run: GraphRun) -> Iterator[None]:
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        status = signal(run.span, error)
        note(run.span, error, quiet=QUIET, policies=run.policies)
        if run.keeps and run.result is not None:
            tell(run.span, written(lambda: {names.OUTPUT_VALUE: run.result}, in_use(), run.policies))
        run.close("interrupt" if status == "done" and run.interrupted else status, failure(error, QUIET))


def _start(graph: Graph, config: RunnableConfig, origin: Origin, switch: Switch, input: object) -> GraphRun:
    given = config.get("configurable", {})
    thread, checkpoint = given.get("thread_id"), given.get("checkpoint_id")
    own = (graph.config or {}).get("metadata") or {}
    # A graph inside another one sees the other's metadata, too: what they say is not about it.
    told = config.get("metadata") or {} if current_run() is None else own
    named = told.get(names.AGENT) or own.get("lc_agent_name")
    name = named or config.get("run_name") or graph.get_name()
    agent = bool(named) or is_agent(own)
    operation = names.INVOKE_AGENT if agent else names.INVOKE_WORKFLOW
    conversation = None if thread is None else str(thread)
    facts: dict[str, Value] = {
        names.OPERATION: operation,
        names.AGENT if agent else names.WORKFLOW: name,
        **names.conversation(conversation),
        **names.agent(told),
        **origin.facts(),
    }
    if conversation is not None:
        facts[names.GRAPH_THREAD] = conversation
    if checkpoint is not None and "__pregel_task_id" not in given:
        facts[names.GRAPH_CHECKPOINT] = str(checkpoint)
    options = in_use()
    user = told.get("user_id") or told.get("langfuse_user_id")
    if options.dialects and user is not None:
        facts[names.USER] = str(user)
    chosen = tracer()
    span = start(f"{operation} {name}", facts, tracer=chosen, links=origin.links())
    channels: Container[str] = graph.trigger_to_nodes
    # By the graph's own name: that of a run may be another one for each.
    kinds = {names.OPERATION: operation, names.AGENT if agent else names.WORKFLOW: named or graph.get_name()}
    timed = watch(names.AGENT_DURATION if agent else names.WORKFLOW_DURATION, kinds)
    run = GraphRun(
        span, chosen, conversation=conversation, channels=channels, supersteps=switch.supersteps, timed=timed
    )
    if options.values and span.is_recording():
        run.keeps = True
        tell(span, written(lambda: {names.INPUT_VALUE: input}, options, run.policies))
    return run


def _merged(graph: Graph, config: RunnableConfig | None) -> RunnableConfig:
    """What the run will see: the ambient configuration, the graph's own, the caller's; the last one wins."""
    merged = ensure_config(graph.config)
    own: RunnableConfig = config or {}
    # What is given as None counts as not given, to LangGraph too.
    merged["configurable"] = {**merged.get("configurable", {}), **(own.get("configurable") or {})}
    merged["metadata"] = {**merged.get("metadata", {}), **(own.get("metadata") or {})}
    merged["run_name"] = own.get("run_name") or (graph.config or {}).get("run_name") or ""
    return merged


def _signed(
    graph: Graph, config: RunnableConfig | None, merged: RunnableConfig, run: GraphRun, kwargs: dict[str, Any]
) -> RunnableConfig | None:
    if saver(graph, merged) is None or not run.span.get_span_context().is_valid:
        return config
    waits = bool(kwargs.get("interrupt_before") or kwargs.get("interrupt_after"))
    return signed(config or {}, run.span.get_span_context(), waits=waits)


def _watch(run: GraphRun, chunk: object) -> None:
    """A graph that stops before or after a node, without a node's doing, tells so only in its stream."""
    payload = chunk[-1] if isinstance(chunk, tuple) and chunk else chunk
    if run.keeps:
        run.result = _state(chunk, run.result)
    if isinstance(payload, dict) and not run.interrupted:
        data = payload.get("data")
        run.interrupted = (
            "__interrupt__" in payload
            or (isinstance(data, dict) and "__interrupt__" in data)
            or bool(payload.get("interrupts") and "ns" in payload)
        )
        if run.interrupted:
            run.span.add_event(names.EVENT_INTERRUPT)


def _state(chunk: object, before: object) -> object:
    """The run's state if the chunk tells it, else what was told before; a stream of one kind tells what it tells."""
    match chunk:
        case ((), str() as mode, value) | (str() as mode, value):
            return value if mode == "values" else before
        case {"type": str() as mode, "ns": [] | (), "data": value}:
            return value if mode == "values" else before
        case tuple() | {"type": str(), "ns": _, "data": _}:
            return before  # of a graph inside, or a piece of a message
    return chunk
