"""The wrappers round LangGraph's tasks: a span for each visit of a node, and for each attempt at it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.types import PregelExecutableTask, Send
from opentelemetry import trace

from . import names
from .adopt import Adopted
from .content import Policy, under, written
from .graph_run import GraphRun, Visit, Wrote, current_run, spelled
from .graph_signals import QUIET, Switch, signal
from .guarded import end
from .names import Facts, Value
from .options import in_use
from .spans import Active, failure, note, start, tell


def traced_task(run_task: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
    """The runner's `run_with_retry` with a span round the task."""

    @wraps(run_task)
    def wrapper(task: PregelExecutableTask, retry_policy: Any, *args: Any, **kwargs: Any) -> Any:
        run = current_run()
        if run is None or switch.idle() or _hidden(task):
            return run_task(task, retry_policy, *args, **kwargs)
        with _Task(run, task, attempts=bool(task.retry_policy or retry_policy)) as node:
            return node.gave(run_task(node.inside(task), retry_policy, *args, **kwargs))

    return wrapper


def traced_atask(run_task: Callable[..., Awaitable[Any]], switch: Switch) -> Callable[..., Awaitable[Any]]:
    """The runner's `arun_with_retry` with a span round the task."""

    @wraps(run_task)
    async def wrapper(task: PregelExecutableTask, retry_policy: Any, *args: Any, **kwargs: Any) -> Any:
        run = current_run()
        if run is None or switch.idle() or _hidden(task):
            return await run_task(task, retry_policy, *args, **kwargs)
        attempts = bool(task.retry_policy or retry_policy or getattr(task, "timeout", None))  # the last one from 1.2 on
        with _Task(run, task, attempts=attempts) as node:
            return node.gave(await run_task(node.inside(task), retry_policy, *args, **kwargs))

    return wrapper


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
        self._timed = run.timed.within(
            names.STEP_DURATION, {names.OPERATION: names.RUN_STEP, names.STEP_NAME: task.name}
        )
        self._options = in_use()
        own = _policy(task) if self._options.content else None
        self._active = Active(under(own, trace.set_span_in_context(self.span)))
        self._policies = run.policies if own is None else (own, *run.policies)
        self._record(names.INPUT_VALUE, task.input)

    def inside(self, task: PregelExecutableTask) -> PregelExecutableTask:
        """The task to run: itself, or with every attempt at it in a span of its own."""
        proc: Any = _Attempts(self, task.proc) if self._proxied else task.proc
        return replace(task, proc=proc) if self._proxied else task

    def gave(self, result: Any) -> Any:
        """Records what the node gave, if that is wanted, and hands it on."""
        if self._options.values:
            written_only = {name: value for name, value in self.task.writes if not name.startswith(("branch:", "__"))}
            self._record(names.OUTPUT_VALUE, written_only if result is None else result)
        return result

    def __enter__(self) -> _Task:
        self._active.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._active.__exit__(kind, error, trace)
        status = signal(self.span, error)
        if error is not None:
            note(self.span, error, quiet=QUIET, policies=self._policies)
        self._timed.end(failure(error, QUIET))
        if status == "interrupt":
            self.run.interrupted = True
        facts: dict[str, Value] = {
            names.GRAPH_STATUS: status,
            names.GRAPH_ATTEMPTS: max(1, self.attempts),
        }
        if goto := _goto(self.task):
            facts[names.GRAPH_GOTO] = goto
        tell(self.span, facts)
        self.release()

    @contextmanager
    def attempt(self) -> Iterator[Active]:
        """An attempt; what it yields makes it current. After a timeout it may outlive its task a little."""
        with self._lock:
            self._open += 1
            self.attempts += 1
            number = self.attempts
        facts: Facts = {names.GRAPH_ATTEMPT: number}
        above = self.span.get_span_context()
        span = start(f"{names.ATTEMPT} {number}", facts, parent=above, tracer=self.run.tracer)
        error: BaseException | None = None
        try:
            yield Active(trace.set_span_in_context(span))
        except BaseException as raised:
            error = raised
            raise
        finally:
            signal(span, error)
            note(span, error, quiet=QUIET, policies=self._policies)
            end(span)
            self.release()

    def release(self) -> None:
        with self._lock:
            self._open -= 1
            last = self._open == 0
        if last:
            end(self.span)
            self.run.ended(self.visit, self.span, _wrote(self.task, self.run.channels))

    def _record(self, name: str, value: Any) -> None:
        if self._options.values and self.span.is_recording():
            tell(self.span, written(lambda: {name: value}, self._options, self._policies), self._options)


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
        inner: Adopted[Any] = Adopted(self._body.astream(input, config))
        with self._node.attempt() as active:
            try:
                while True:
                    with active:
                        try:
                            chunk = await inner.next()
                        except StopAsyncIteration:
                            return
                    yield chunk
            finally:
                with active:
                    await inner.close()


def _visit(task: PregelExecutableTask) -> Visit:
    metadata = task.config.get("metadata", {})
    return Visit(
        node=task.name,
        task=task.id,
        step=int(metadata.get("langgraph_step", -1)),
        path=spelled(task.path[:3]),
        triggers=tuple(task.triggers),
        checkpoint_ns=str(metadata.get("langgraph_checkpoint_ns", "")),
        sent=id(task.input) if task.path[0] == "__pregel_push" else None,
    )


def _policy(task: PregelExecutableTask) -> Policy | None:
    """What the node wants of its payloads in a trace (LangGraph 1.2)."""
    found = getattr(task.proc, "trace_policy", None)
    inputs, outputs = getattr(found, "process_inputs", None), getattr(found, "process_outputs", None)
    return None if inputs is None and outputs is None else Policy(inputs, outputs)


def _hidden(task: PregelExecutableTask) -> bool:
    return "langsmith:hidden" in (task.config.get("tags") or ())


def _wrote(task: PregelExecutableTask, channels: Container[str]) -> Iterator[Wrote]:
    """What a task wrote that may start others: to one of these channels, or a send."""
    for channel, value in task.writes:
        if isinstance(value, Send):
            yield Wrote(channel, task.name, value.node, id(value.arg))
        elif channel in channels:
            yield Wrote(channel, task.name)


def _goto(task: PregelExecutableTask) -> tuple[str, ...]:
    """The nodes a task's writes lead to: by edge, by command, or sent."""
    edges: list[str] = []
    sent: list[str] = []
    for channel, value in task.writes:
        if isinstance(value, Send):
            sent.append(value.node)
        elif channel.startswith("branch:to:"):
            edges.append(channel.removeprefix("branch:to:"))
    return (*edges, *sent)
