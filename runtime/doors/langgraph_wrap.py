"""`wrap(graph)`: one line that tells the scheduler what a graph does, and gives its runs spans.

No node is changed. A callback handler travels in the graph's configuration; it learns from LangGraph when a run
starts, which tools are out, when it fans out, travels in time, waits for a person, ends, fails or is cancelled; and
from the graph's edges how many steps it is from its next call of a model.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import UUID
from weakref import WeakKeyDictionary

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import Runnable
from langgraph.callbacks import GraphCallbackHandler, GraphInterruptEvent
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphBubbleUp
from langgraph.pregel import Pregel
from langgraph.types import Command, Send

from ...scheduler import Event, Forking, Interrupted, Planned, ProgramId, ToolEnded, ToolStarted, Travelled
from ...tracing import GraphTracer
from ..host import Host
from .langgraph_moments import Moments
from .langgraph_saver import BoundSaver
from .langgraph_steps import Place, Steps, place_of

AnyRunnable = TypeVar("AnyRunnable", bound=Runnable[Any, Any])


def wrap(graph: AnyRunnable) -> AnyRunnable:
    """The same graph, whose runs hold their context across tool pauses and give it up when they end.

    Works on any compiled LangGraph graph, `create_agent`'s included. Where it has a checkpointer, its checkpoints keep
    the contexts that belong to them, so that going back to one computes nothing anew. Wrapping twice is wrapping
    once. Raises TypeError for what is no runnable, such as a StateGraph that was not compiled.
    """
    given: object = graph  # whatever the caller's types promise
    if not isinstance(given, Runnable):
        hint = ": call .compile() on it first" if hasattr(given, "compile") else ""
        raise TypeError(f"wrap() takes a compiled graph, found {type(given).__name__}{hint}")
    if any(isinstance(handler, Lifecycle) for handler in _handlers(getattr(graph, "config", None))):
        return graph
    saver = getattr(graph, "checkpointer", None)
    moments = _moments_of(saver) if isinstance(saver, BaseCheckpointSaver) else Moments()
    steps = Steps(graph if isinstance(graph, Pregel) else None)
    wrapped: Any = graph.with_config(callbacks=[Lifecycle(moments, steps), GraphTracer()])
    if isinstance(saver, BaseCheckpointSaver):
        wrapped.checkpointer = BoundSaver(saver, moments, strict=True)
    return wrapped  # type: ignore[no-any-return]


def lifecycle_of(handlers: Sequence[BaseCallbackHandler]) -> Lifecycle | None:
    """The handler that `wrap` put into a run, among those of a call inside the run."""
    return next((handler for handler in handlers if isinstance(handler, Lifecycle)), None)


@dataclass(slots=True)
class _Root:
    """A run of the outermost graph."""

    thread: str
    """Its thread's id, its own where it has none."""
    program: ProgramId | None = None
    """Known when the first model joins: only then is the tenant."""
    hosts: list[Host] = field(default_factory=list)
    runs: set[UUID] = field(default_factory=set)
    interrupted: bool = False
    travelled: str | None = None
    """The older checkpoint that the run starts from."""
    nodes: dict[UUID, Place] = field(default_factory=dict)
    """The runs of nodes that are on their way."""
    steps: int | None = None
    """To its next call of a model, as it was told last."""


class Lifecycle(GraphCallbackHandler):
    """Turns LangGraph's callbacks into the scheduler's events, for the hosts whose models a run has called."""

    run_inline = True  # in order, and in the run's own thread: an executor would reorder tool ends and resumes

    def __init__(self, moments: Moments, steps: Steps) -> None:
        self.moments = moments
        self._steps = steps
        self._roots: dict[UUID, _Root] = {}
        self._root_of: dict[UUID, UUID] = {}
        self._lock = threading.Lock()

    def join(self, run_id: UUID | None, host: Host, tenant: str) -> ProgramId | None:
        """A model in this run uses this host; the program it belongs to, None for a run that is not known."""
        with self._lock:
            root = self._root(run_id)
            if root is None:
                return None
            program = root.program = root.program or program_of(tenant, root.thread)
            if host not in root.hosts:
                root.hosts.append(host)
                host.begin(program)
                if root.travelled is not None:
                    host.tell(Travelled(program, root.travelled))
            return program

    def asked(self, run_id: UUID | None, namespace: str) -> None:
        """A model was just asked in this run, in the node of this checkpoint namespace: it may be so again."""
        with self._lock:
            self._steps.called(place_of(namespace))
        self._plan(run_id)

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **told: Any
    ) -> None:
        metadata: dict[str, Any] = told.get("metadata") or {}
        with self._lock:
            if parent_run_id is None:
                older = metadata.get("checkpoint_id")
                self._roots[run_id] = _Root(str(metadata.get("thread_id") or run_id), travelled=older)
                self._root_of[run_id] = run_id
            else:
                self._adopt(run_id, parent_run_id)
            root = self._root(run_id)
            if root is None or not any(tag.startswith("graph:step:") for tag in told.get("tags") or ()):
                return
            root.nodes[run_id] = place_of(str(metadata.get("langgraph_checkpoint_ns") or ""))
        self._plan(run_id)

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **told: Any
    ) -> None:
        self._adopt(run_id, parent_run_id)

    def on_llm_start(
        self, serialized: Any, prompts: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **told: Any
    ) -> None:
        self._adopt(run_id, parent_run_id)

    def on_tool_start(
        self, serialized: Any, input_str: str, *, run_id: UUID, parent_run_id: UUID | None = None, **told: Any
    ) -> None:
        self._adopt(run_id, parent_run_id)
        name = (serialized or {}).get("name") or told.get("name") or "tool"
        self._tell(run_id, lambda program: ToolStarted(program, str(name), str(run_id)))

    def on_tool_end(self, output: Any, *, run_id: UUID, **told: Any) -> None:
        self._tool_over(run_id, ok=True)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **told: Any) -> None:
        # An interrupt inside a tool arrives as an error; it is none.
        self._tool_over(run_id, ok=isinstance(error, GraphBubbleUp))

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **told: Any) -> None:
        width = _fan_out(outputs)
        if width > 1:
            self._tell(run_id, lambda program: Forking(program, width))
        self._chain_over(run_id, "finished")

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **told: Any) -> None:
        given_up = isinstance(error, asyncio.CancelledError | GeneratorExit | KeyboardInterrupt)
        self._chain_over(run_id, "cancelled" if given_up else "failed")

    def on_interrupt(self, event: GraphInterruptEvent) -> None:
        with self._lock:
            root = self._root(event.run_id)
            if root is not None:
                root.interrupted = True

    def __repr__(self) -> str:
        return f"<Lifecycle {len(self._roots)} runs>"

    def _root(self, run_id: UUID | None) -> _Root | None:
        return None if run_id is None else self._roots.get(self._root_of.get(run_id, run_id))

    def _adopt(self, run_id: UUID, parent: UUID | None) -> None:
        root = None if parent is None else self._root_of.get(parent)
        if root is not None and root in self._roots:
            self._root_of[run_id] = root
            self._roots[root].runs.add(run_id)

    def _tell(self, run_id: UUID | None, event: Any) -> None:
        root = self._root(run_id)
        if root is not None and root.program is not None:
            told: Event = event(root.program)
            for host in list(root.hosts):
                host.tell(told)

    def _plan(self, run_id: UUID | None) -> None:
        """Tell how many steps lie before the next call of a model, where that is known and has changed."""
        with self._lock:
            root = self._root(run_id)
            if root is None or root.program is None:
                return
            steps = self._steps.soonest(root.nodes.values())
            if steps is None or steps == root.steps:
                return
            root.steps = steps
        self._tell(run_id, lambda program: Planned(program, steps))

    def _node_over(self, run_id: UUID) -> None:
        with self._lock:
            root = self._root(run_id)
            if root is not None:
                root.nodes.pop(run_id, None)

    def _tool_over(self, run_id: UUID, *, ok: bool) -> None:
        self._tell(run_id, lambda program: ToolEnded(program, "", str(run_id), ok))

    def _chain_over(self, run_id: UUID, why: str) -> None:
        self._node_over(run_id)
        root = self._roots.get(run_id)
        if root is None:
            return
        paused = root.interrupted and why == "finished"
        if paused:
            self._tell(run_id, Interrupted)
        for host in root.hosts if root.program is not None else ():
            host.end(str(root.program), why, over=not paused)
        if not paused:
            self.moments.over(root.thread)
        with self._lock:
            del self._roots[run_id]
            for known in (run_id, *root.runs):
                self._root_of.pop(known, None)


_known: WeakKeyDictionary[BaseCheckpointSaver[Any], Moments] = WeakKeyDictionary()


def _moments_of(saver: BaseCheckpointSaver[Any]) -> Moments:
    """Graphs that save to the same checkpointer have their threads in common."""
    inner = saver.inner if isinstance(saver, BoundSaver) else saver
    return _known.setdefault(inner, Moments())


def program_of(tenant: str, thread: str) -> ProgramId:
    """The identity under which a run's context is held."""
    return ProgramId(f"{quote(tenant, safe='')}/{thread}")


def _fan_out(outputs: Any) -> int:
    """Branches that a node or router is about to start; calls of tools are no branches."""
    sends = outputs if isinstance(outputs, list) else []
    if isinstance(outputs, Command):
        goto = outputs.goto
        sends = list(goto) if isinstance(goto, list | tuple) else [goto]
    return sum(1 for send in sends if isinstance(send, Send) and not _is_tool_call(send.arg))


def _is_tool_call(arg: Any) -> bool:
    if isinstance(arg, list):
        return bool(arg) and all(_is_tool_call(item) for item in arg)
    return isinstance(arg, dict) and ("tool_call" in arg or arg.get("type") == "tool_call" or "__type" in arg)


def _handlers(config: Any) -> list[BaseCallbackHandler]:
    callbacks = (config or {}).get("callbacks") or []
    return list(callbacks.handlers if isinstance(callbacks, BaseCallbackManager) else callbacks)
