"""The wrappers round LangGraph's runs and tasks: a span with its `finally`, current only while the inside works.

A graph's generator is driven step by step, and its span is current only inside each step, so whoever consumes the
stream never sees it and may close it from another task. Nothing here reads a value that flows through a graph.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Container, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

from langchain_core.runnables import RunnableConfig, ensure_config
from langgraph.errors import GraphBubbleUp, GraphDrained, GraphInterrupt, ParentCommand
from langgraph.pregel import Pregel
from langgraph.types import Interrupt, PregelExecutableTask, Send
from opentelemetry import trace
from opentelemetry.trace import Span

from . import names
from .graph_resume import Origin, aorigin, origin, saver, signed
from .graph_run import GraphRun, Visit, Wrote, current_run
from .names import Facts, Value
from .spans import Active, Quiet, note, suppressed, tracer

Graph = Pregel[Any, Any, Any, Any]
QUIET: Quiet = (GraphBubbleUp,)


@dataclass(slots=True)
class Switch:
    """Whether the wrappers trace. Turned off, one that somebody else has wrapped over just passes through."""

    on: bool = True
    supersteps: bool = True

    def idle(self) -> bool:
        return not self.on or suppressed()


def traced_stream(stream: Callable[..., Iterator[Any]], switch: Switch) -> Callable[..., Iterator[Any]]:
    """`Pregel.stream` with a span round the run."""

    @wraps(stream)
    def wrapper(self: Graph, input: object, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        if switch.idle():
            yield from stream(self, input, config, **kwargs)
            return
        merged = _merged(self, config)
        run = _start(self, merged, origin(self, input, merged), switch)
        inner: Generator[Any] = stream(self, input, _signed(self, config, merged, run), **kwargs)  # type: ignore[assignment]
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

    return wrapper


def traced_astream(
    astream: Callable[..., AsyncIterator[Any]], switch: Switch
) -> Callable[..., AsyncIterator[Any]]:
    """`Pregel.astream` with a span round the run."""

    @wraps(astream)
    async def wrapper(
        self: Graph, input: object, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        if switch.idle():
            async for chunk in astream(self, input, config, **kwargs):
                yield chunk
            return
        merged = _merged(self, config)
        run = _start(self, merged, await aorigin(self, input, merged), switch)
        inner: AsyncGenerator[Any] = astream(self, input, _signed(self, config, merged, run), **kwargs)  # type: ignore[assignment]
        with _ending(run):
            try:
                while True:
                    with run.active():
                        try:
                            chunk = await anext(inner)
                        except StopAsyncIteration:
                            return
                    _watch(run, chunk)
                    yield chunk
            finally:
                with run.active():
                    await _aclose(inner)

    return wrapper


def traced_task(run_task: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
    """The runner's `run_with_retry` with a span round the task."""

    @wraps(run_task)
    def wrapper(task: PregelExecutableTask, retry_policy: Any, *args: Any, **kwargs: Any) -> Any:
        run = None if switch.idle() else current_run()
        if run is None or _hidden(task):
            return run_task(task, retry_policy, *args, **kwargs)
        with _Task(run, task, attempts=bool(task.retry_policy or retry_policy)) as node:
            return run_task(node.inside(task), retry_policy, *args, **kwargs)

    return wrapper


def traced_atask(run_task: Callable[..., Awaitable[Any]], switch: Switch) -> Callable[..., Awaitable[Any]]:
    """The runner's `arun_with_retry` with a span round the task."""

    @wraps(run_task)
    async def wrapper(task: PregelExecutableTask, retry_policy: Any, *args: Any, **kwargs: Any) -> Any:
        run = None if switch.idle() else current_run()
        if run is None or _hidden(task):
            return await run_task(task, retry_policy, *args, **kwargs)
        attempts = bool(task.retry_policy or retry_policy or task.timeout)
        with _Task(run, task, attempts=attempts) as node:
            return await run_task(node.inside(task), retry_policy, *args, **kwargs)

    return wrapper


def signal(span: Span, error: BaseException | None) -> str:
    """Notes a signal of LangGraph as an event, and says what a run that ends with this has come to."""
    match error:
        case None:
            return "done"
        case GraphDrained():
            span.add_event(names.EVENT_DRAINED)
            return "drained"
        case ParentCommand():
            goto = error.args[0].goto
            nodes = [goto] if isinstance(goto, str | Send) else goto
            span.add_event(names.EVENT_HANDOFF, {names.GRAPH_GOTO: tuple(_goal(each) for each in nodes)})
            return "done"
        case GraphInterrupt():
            found = error.args[0] if error.args else ()
            ids = tuple(each.id for each in found if isinstance(each, Interrupt))
            span.add_event(names.EVENT_INTERRUPT, {names.GRAPH_INTERRUPTS: ids})
            return "interrupt"
        case asyncio.CancelledError() | GeneratorExit():
            return "cancelled"
        case _:
            return "error"


class _Task:
    """The span of a task, open until the task and the last of its attempts have ended."""

    def __init__(self, run: GraphRun, task: PregelExecutableTask, *, attempts: bool) -> None:
        self.run = run
        self.task = task
        self.visit = _visit(task)
        self.span = run.start(self.visit)
        self.attempts = 0
        self._proxied = attempts
        self._open = 1
        self._lock = threading.Lock()
        self._active = Active(trace.set_span_in_context(self.span))

    def inside(self, task: PregelExecutableTask) -> PregelExecutableTask:
        """The task to run: itself, or with every attempt at it in a span of its own."""
        return replace(task, proc=_Attempts(self, task.proc)) if self._proxied else task  # type: ignore[arg-type]

    def __enter__(self) -> _Task:
        self._active.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._active.__exit__(kind, error, trace)
        status = signal(self.span, error)
        note(self.span, error, quiet=QUIET)
        if status == "interrupt":
            self.run.interrupted = True
        facts: dict[str, Value] = {
            names.GRAPH_STATUS: status,
            names.GRAPH_ATTEMPTS: max(1, self.attempts),
        }
        if goto := _goto(self.task):
            facts[names.GRAPH_GOTO] = goto
        self.span.set_attributes(facts)
        self.release()

    @contextmanager
    def attempt(self) -> Iterator[Active]:
        """An attempt; what it yields makes it current. It may outlive the task by a moment, after a timeout."""
        with self._lock:
            self._open += 1
            self.attempts += 1
            number = self.attempts
        facts: Facts = {names.GRAPH_ATTEMPT: number}
        within = trace.set_span_in_context(self.span)
        span = self.run.tracer.start_span(f"{names.ATTEMPT} {number}", within, attributes=facts)
        error: BaseException | None = None
        try:
            yield Active(trace.set_span_in_context(span))
        except BaseException as raised:
            error = raised
            raise
        finally:
            signal(span, error)
            note(span, error, quiet=QUIET)
            span.end()
            self.release()

    def release(self) -> None:
        with self._lock:
            self._open -= 1
            last = self._open == 0
        if last:
            self.span.end()
            self.run.ended(self.visit, self.span, _wrote(self.task))


class _Attempts:
    """A task's body, with a span round each time it is called."""

    def __init__(self, node: _Task, body: Any) -> None:
        self._node = node
        self._body = body

    def invoke(self, input: Any, config: RunnableConfig) -> Any:
        with self._node.attempt() as active, active:
            return self._body.invoke(input, config)

    async def ainvoke(self, input: Any, config: RunnableConfig) -> Any:
        with self._node.attempt() as active, active:
            return await self._body.ainvoke(input, config)

    async def astream(self, input: Any, config: RunnableConfig) -> AsyncIterator[Any]:
        inner = self._body.astream(input, config)
        with self._node.attempt() as active:
            try:
                while True:
                    with active:
                        try:
                            chunk = await anext(inner)
                        except StopAsyncIteration:
                            return
                    yield chunk
            finally:
                with active:
                    await _aclose(inner)


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
        note(run.span, error, quiet=QUIET)
        run.close("interrupt" if status == "done" and run.interrupted else status)


async def _aclose(inner: AsyncGenerator[Any]) -> None:
    try:
        await inner.aclose()
    except RuntimeError:
        # An event loop that shuts down closes all its generators at once: somebody else is closing this one.
        if not inner.ag_running:
            raise


def _start(graph: Graph, config: RunnableConfig, origin: Origin, switch: Switch) -> GraphRun:
    given = config.get("configurable", {})
    thread, checkpoint = given.get("thread_id"), given.get("checkpoint_id")
    agent = ((graph.config or {}).get("metadata") or {}).get("lc_agent_name")
    name = agent or config.get("run_name") or graph.get_name()
    operation = names.INVOKE_AGENT if agent else names.INVOKE_WORKFLOW
    conversation = None if thread is None else str(thread)
    facts: dict[str, Value] = {
        names.OPERATION: operation,
        names.AGENT if agent else names.WORKFLOW: name,
        **names.conversation(conversation),
        **origin.facts(),
    }
    if conversation is not None:
        facts[names.GRAPH_THREAD] = conversation
    if checkpoint is not None and "__pregel_task_id" not in given:
        facts[names.GRAPH_CHECKPOINT] = str(checkpoint)
    chosen = tracer()
    span = chosen.start_span(f"{operation} {name}", attributes=facts, links=origin.links())
    channels: Container[str] = graph.trigger_to_nodes
    return GraphRun(span, chosen, conversation=conversation, channels=channels, supersteps=switch.supersteps)


def _merged(graph: Graph, config: RunnableConfig | None) -> RunnableConfig:
    """What the run will see: the ambient configuration, the graph's own, the caller's; the last one wins."""
    merged = ensure_config(graph.config)
    own: RunnableConfig = config or {}
    merged["configurable"] = {**merged.get("configurable", {}), **own.get("configurable", {})}
    merged["run_name"] = own.get("run_name") or (graph.config or {}).get("run_name") or ""
    return merged


def _signed(
    graph: Graph, config: RunnableConfig | None, merged: RunnableConfig, run: GraphRun
) -> RunnableConfig | None:
    if saver(graph, merged) is None or not run.span.get_span_context().is_valid:
        return config
    return signed(config or {}, run.span.get_span_context())


def _watch(run: GraphRun, chunk: object) -> None:
    """A graph that stops before or after a node, without a node's doing, tells so only in its stream."""
    payload = chunk[-1] if isinstance(chunk, tuple) and chunk else chunk
    if isinstance(payload, dict) and not run.interrupted:
        data = payload.get("data")
        run.interrupted = (
            "__interrupt__" in payload
            or (isinstance(data, dict) and "__interrupt__" in data)
            or bool(payload.get("interrupts") and "ns" in payload)
        )
        if run.interrupted:
            run.span.add_event(names.EVENT_INTERRUPT)


def _visit(task: PregelExecutableTask) -> Visit:
    metadata = task.config.get("metadata", {})
    return Visit(
        node=task.name,
        task=task.id,
        step=int(metadata.get("langgraph_step", -1)),
        path=_path(task.path[:3]),
        triggers=tuple(task.triggers),
        checkpoint_ns=str(metadata.get("langgraph_checkpoint_ns", "")),
        sent=id(task.input) if task.path[0] == "__pregel_push" else None,
    )


def _path(path: tuple[Any, ...]) -> str:
    return "/".join(f"({_path(each)})" if isinstance(each, tuple) else str(each) for each in path)


def _hidden(task: PregelExecutableTask) -> bool:
    return "langsmith:hidden" in (task.config.get("tags") or ())


def _wrote(task: PregelExecutableTask) -> Iterator[Wrote]:
    for channel, value in task.writes:
        if isinstance(value, Send):
            yield Wrote(channel, value.node, id(value.arg))
        else:
            yield Wrote(channel)


def _goto(task: PregelExecutableTask) -> tuple[str, ...]:
    """The nodes a task's writes lead to: by edge, by command, or sent."""
    edges = [channel.removeprefix("branch:to:") for channel, _ in task.writes if channel.startswith("branch:to:")]
    return tuple(edges + [value.node for _, value in task.writes if isinstance(value, Send)])


def _goal(goto: object) -> str:
    return goto.node if isinstance(goto, Send) else str(goto)
