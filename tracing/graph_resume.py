"""Where a graph run starts from: which earlier run left the checkpoint, and why this one takes it up.

Every run with a thread and a checkpointer writes its own `traceparent` (W3C) into `config["metadata"]`, which
LangGraph saves with each checkpoint; so the next run finds it, also in another process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.pregel import Pregel
from langgraph.types import Command
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from . import names
from .names import Facts

Resumed = Literal["none", "interrupt", "replay", "fork", "crash"]
KEY = "traceparent"
_STATE = "tracestate"
_WAITS = ("sostenuto", "waits")
_FARTHEST = 4
"""How many checkpoints to walk up: those that `update_state` makes carry no metadata of a run."""

_W3C = TraceContextTextMapPropagator()


@dataclass(frozen=True, slots=True)
class Origin:
    """What a run takes up."""

    resumed: Resumed = "none"
    run: SpanContext | None = None
    """The run that left the checkpoint."""

    def facts(self) -> Facts:
        """Its attributes; the ids too, because some back ends drop what links say."""
        if self.run is None or self.resumed == "none":
            return {names.GRAPH_RESUMED: self.resumed}
        return {
            names.GRAPH_RESUMED: self.resumed,
            names.GRAPH_RESUMED_TRACE: trace.format_trace_id(self.run.trace_id),
            names.GRAPH_RESUMED_SPAN: trace.format_span_id(self.run.span_id),
        }

    def links(self) -> list[Link]:
        """To the run it takes up, or to the one before it on the same thread."""
        if self.run is None:
            return []
        return [Link(self.run, {names.LINK: "previous" if self.resumed == "none" else "resume"})]


def saver(graph: Pregel[Any, Any, Any, Any], config: RunnableConfig) -> BaseCheckpointSaver[Any] | None:
    """The checkpointer whose checkpoints this run starts from, if it is a run of its own with a thread."""
    given = config.get("configurable", {})
    found = given.get("__pregel_checkpointer", graph.checkpointer)
    alone = "__pregel_task_id" not in given and given.get("thread_id") is not None
    return found if alone and isinstance(found, BaseCheckpointSaver) else None


def origin(graph: Pregel[Any, Any, Any, Any], input: object, config: RunnableConfig) -> Origin:
    """Reads the checkpoint a run starts from. A fault of the store is raised, as the run itself would."""
    store = saver(graph, config)
    if store is None or (saved := store.get_tuple(config)) is None:
        return Origin()
    run, at = _run(saved), saved
    for _ in range(_FARTHEST):
        if run is not None or at.parent_config is None or (up := store.get_tuple(at.parent_config)) is None:
            break
        run, at = _run(up), up
    return Origin(_why(graph, input, config, saved), run)


async def aorigin(graph: Pregel[Any, Any, Any, Any], input: object, config: RunnableConfig) -> Origin:
    """The same, for a run in an event loop."""
    store = saver(graph, config)
    if store is None or (saved := await store.aget_tuple(config)) is None:
        return Origin()
    run, at = _run(saved), saved
    for _ in range(_FARTHEST):
        if run is not None or at.parent_config is None or (up := await store.aget_tuple(at.parent_config)) is None:
            break
        run, at = _run(up), up
    return Origin(_why(graph, input, config, saved), run)


def signed(config: RunnableConfig, run: SpanContext, *, waits: bool) -> RunnableConfig:
    """The configuration with the run's `traceparent` in its metadata; one the caller gave stays.

    `waits`: the caller asked it to stop before or after nodes. Nothing in a checkpoint tells such a stop from a
    crash, so the `tracestate` beside it does.
    """
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, trace.set_span_in_context(trace.NonRecordingSpan(run)))
    if waits:
        carrier[_STATE] = trace.TraceState([*run.trace_state.items(), _WAITS]).to_header()
    return {**config, "metadata": {**carrier, **(config.get("metadata") or {})}}


def _run(saved: CheckpointTuple) -> SpanContext | None:
    metadata: Mapping[str, Any] = saved.metadata or {}
    if not isinstance(metadata.get(KEY), str):
        return None
    # Out of an empty context: an unreadable `traceparent` must not become the ambient span.
    found = trace.get_current_span(_W3C.extract({KEY: metadata[KEY]}, Context())).get_span_context()
    return found if found.is_valid else None


def _why(graph: Pregel[Any, Any, Any, Any], input: object, config: RunnableConfig, saved: CheckpointTuple) -> Resumed:
    if isinstance(input, Command) and input.resume is not None:
        return "interrupt"
    if input is not None:
        return "fork" if config.get("configurable", {}).get("checkpoint_id") is not None else "none"
    if (saved.metadata or {}).get("source") in ("update", "fork"):
        return "fork"
    pending = {channel for _, channel, _ in saved.pending_writes or ()}
    if config.get("configurable", {}).get("checkpoint_id") is not None:
        return "replay"
    if "__error__" in pending:
        return "crash"
    waits = graph.interrupt_before_nodes or graph.interrupt_after_nodes
    asked = trace.TraceState.from_header([str((saved.metadata or {}).get(_STATE, ""))]).get(_WAITS[0]) == _WAITS[1]
    return "interrupt" if waits or asked or "__interrupt__" in pending else "crash"
