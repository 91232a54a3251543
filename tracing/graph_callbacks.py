"""What can be traced without touching LangGraph: a callback handler that keeps spans by run id.

It cannot make its spans current, so what a node does on its own does not land under the node; our chat model
asks `parent_from` for its parent instead. While `instrument` is on, it does nothing.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.callbacks.base import BaseCallbackHandler
from langgraph.errors import GraphInterrupt
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, SpanContext, TracerProvider

from . import names
from .content import Make, written
from .graph import instrumented
from .graph_content import result_of
from .graph_signals import QUIET, is_agent, signal
from .guarded import end
from .meters import Watch, watch
from .names import Facts, Value
from .options import Options, Redact, in_use
from .spans import failure, finish, start, suppressed, tell


@dataclass(frozen=True, slots=True)
class _Run:
    """A callback run: the span it stands for or under, and whether that span is its own."""

    root: UUID
    span: Span
    timed: Watch | None = None
    """Of a span of its own."""


class GraphTracer(BaseCallbackHandler):
    """Spans for the runs, nodes and tools of the graphs whose configuration it is put into.

    Its options are those of `instrument`, as far as a handler can follow them; without any, those in use hold. Content
    is that of tools only: what a node is given is not recorded, since a handler is not told of its `TracePolicy`.
    Raises `BadOption`.
    """

    run_inline = True  # else an async run would call it in another thread, after the fact

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        *,
        meter_provider: MeterProvider | None = None,
        content: bool = False,
        redact: Redact | None = None,
        openinference: bool = False,
        langfuse: bool = False,
    ) -> None:
        given = Options(
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            content=content,
            redact=redact,
            openinference=openinference,
            langfuse=langfuse,
        )
        self._given = None if given == Options() else given
        self._lock = threading.Lock()
        self._runs: dict[UUID, _Run] = {}

    def __repr__(self) -> str:
        return f"<GraphTracer {len(self._runs)} open>"

    def parent_of(self, run_id: UUID | None) -> SpanContext | None:
        """The span in which a callback run stands; None if it is not known, or if `instrument` is on."""
        run = None if run_id is None else self._runs.get(run_id)
        return None if run is None or instrumented() else run.span.get_span_context()

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **told: Any
    ) -> None:
        """Opens the span of a run or of a node; other runnables stand in their parent's."""
        metadata: dict[str, Any] = told.get("metadata") or {}
        tags: list[str] = told.get("tags") or []
        name = str(told.get("name") or "graph")
        thread = metadata.get("thread_id")
        conversation = names.conversation(None if thread is None else str(thread))
        if parent_run_id is None or parent_run_id not in self._runs:
            named = metadata.get("lc_agent_name")
            agent = bool(named) or is_agent(metadata)
            operation = names.INVOKE_AGENT if agent else names.INVOKE_WORKFLOW
            kind = names.AGENT if agent else names.WORKFLOW
            facts: dict[str, Value] = {names.OPERATION: operation, kind: named or name, **conversation}
            self._open(run_id, None, f"{operation} {named or name}", facts)
        elif any(tag.startswith("graph:step:") for tag in tags) and "langsmith:hidden" not in tags:
            self._open(run_id, parent_run_id, f"{names.RUN_STEP} {name}", _node(name, metadata) | conversation)
        else:
            self._stand(run_id, parent_run_id)

    def on_tool_start(
        self, serialized: Any, input_str: str, *, run_id: UUID, parent_run_id: UUID | None = None, **told: Any
    ) -> None:
        """Opens the span of a tool call."""
        name = str(told.get("name") or (serialized or {}).get("name") or "tool")
        facts: dict[str, Value] = {
            names.OPERATION: names.EXECUTE_TOOL,
            names.TOOL: name,
            names.TOOL_TYPE: "function",
        }
        if isinstance(call := told.get("tool_call_id"), str):
            facts[names.TOOL_CALL_ID] = call
        self._open(run_id, parent_run_id, f"{names.EXECUTE_TOOL} {name}", facts)
        self._content(run_id, lambda: {names.TOOL_ARGUMENTS: told.get("inputs") or input_str})

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **told: Any
    ) -> None:
        """Notes where a model call stands; our chat model opens the span, others get none."""
        self._stand(run_id, parent_run_id)

    def on_llm_start(
        self, serialized: Any, prompts: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **told: Any
    ) -> None:
        """The same for a model that completes text."""
        self._stand(run_id, parent_run_id)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **told: Any) -> None:
        """Ends a run or a node."""
        self._close(run_id, None)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **told: Any) -> None:
        """Ends a run or a node as it ended."""
        self._close(run_id, error)

    def on_tool_end(self, output: Any, *, run_id: UUID, **told: Any) -> None:
        """Ends a tool call."""
        self._content(run_id, lambda: {names.TOOL_RESULT: result_of(output)})
        self._close(run_id, None)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **told: Any) -> None:
        """Ends a tool call as it ended."""
        self._close(run_id, error)

    def on_llm_end(self, response: Any, *, run_id: UUID, **told: Any) -> None:
        """Forgets a model call."""
        self._close(run_id, None)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **told: Any) -> None:
        """Forgets a model call."""
        self._close(run_id, None)

    def _open(self, run_id: UUID, parent: UUID | None, name: str, facts: Facts) -> None:
        above = None if parent is None else self._runs.get(parent)
        if instrumented() or suppressed() or (above is None and parent is not None):
            return
        # Under the ambient span only where the run itself begins; from there on by run id.
        place = None if above is None else above.span.get_span_context()
        options = self._options
        timed = watch(_METRICS[str(facts[names.OPERATION])], _measured(facts), options)
        span = start(name, facts, parent=place, options=options)
        with self._lock:
            self._runs[run_id] = _Run(above.root if above else run_id, span, timed)

    def _stand(self, run_id: UUID, parent: UUID | None) -> None:
        with self._lock:
            if parent is not None and (above := self._runs.get(parent)) is not None:
                self._runs[run_id] = _Run(above.root, above.span)

    def _close(self, run_id: UUID, error: BaseException | None) -> None:
        with self._lock:
            run = self._runs.pop(run_id, None)
            left = [key for key, each in self._runs.items() if run and run.root == run_id == each.root]
            open_still = [self._runs.pop(key) for key in left]
        if run is None or run.timed is None:
            return
        # LangChain reports no end for what was cancelled: whatever is still open goes with its root.
        for each in reversed(open_still):
            if each.timed is not None:
                each.span.set_attribute(names.OUTCOME, "cancelled")
                end(each.span)
                each.timed.end()
        status = signal(run.span, error)
        if run.root == run_id or isinstance(error, GraphInterrupt):
            run.span.set_attribute(names.GRAPH_STATUS, status)
        finish(run.span, error, quiet=QUIET, options=self._options)
        run.timed.end(failure(error, QUIET))

    def _content(self, run_id: UUID, make: Make) -> None:
        run, options = self._runs.get(run_id), self._options
        if options.content and run is not None and run.timed is not None:
            tell(run.span, written(make, options), options)

    @property
    def _options(self) -> Options:
        return self._given or in_use()


def parent_from(manager: BaseCallbackManager | None) -> SpanContext | None:
    """The parent that a `GraphTracer` among a run's handlers gives to what happens in that run.

    None if there is none, or if `instrument` is on: then the ambient span is the right parent.
    """
    handlers = [] if manager is None else manager.handlers
    tracers = [each for each in handlers if isinstance(each, GraphTracer)]
    runs = (getattr(manager, "run_id", None), getattr(manager, "parent_run_id", None))
    return next((found for each in tracers for run in runs if (found := each.parent_of(run))), None)


def _node(name: str, metadata: dict[str, Any]) -> dict[str, Value]:
    return {
        names.OPERATION: names.RUN_STEP,
        names.STEP_NAME: name,
        names.GRAPH_NODE: name,
        names.GRAPH_STEP: int(metadata.get("langgraph_step", -1)),
        names.GRAPH_TRIGGERS: tuple(metadata.get("langgraph_triggers", ())),
        names.GRAPH_PATH: "/".join(str(each) for each in metadata.get("langgraph_path", ())),
        names.GRAPH_CHECKPOINT_NS: str(metadata.get("langgraph_checkpoint_ns", "")),
    }


def _measured(facts: Facts) -> dict[str, Value]:
    """What a metric says of a run, a node or a tool."""
    kinds = (names.OPERATION, names.AGENT, names.WORKFLOW, names.STEP_NAME, names.TOOL)
    return {kind: facts[kind] for kind in kinds if kind in facts}


_METRICS = {
    names.INVOKE_AGENT: names.AGENT_DURATION,
    names.INVOKE_WORKFLOW: names.WORKFLOW_DURATION,
    names.RUN_STEP: names.STEP_DURATION,
    names.EXECUTE_TOOL: names.TOOL_DURATION,
}
