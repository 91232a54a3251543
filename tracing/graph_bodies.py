"""A LangGraph whose runner has no functions that we know: spans round the bodies of nodes, by another way in.

Every body runs in a copy of the context that `set_config_context` makes for it. A span opened there is current for
the body, and says where LangGraph puts it. What only a task tells is missing: the writes, hence links to what started
a node, where it leads, and the number of an attempt: each attempt has a node span of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from contextvars import Context
from functools import wraps
from typing import Any

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from opentelemetry import context as otel
from opentelemetry import trace

from . import names
from .graph_run import GraphRun, Visit, current_run, spelled
from .graph_signals import QUIET, Switch, signal
from .guarded import end
from .spans import note, tell

_PLACE = otel.create_key("sostenuto-graph-place")
_Entered = Callable[..., AbstractContextManager[Context]]


def traced_context(enter: _Entered, switch: Switch) -> _Entered:
    """LangGraph's `set_config_context`, with a span when what it is entered for is the body of a node."""

    @wraps(enter)
    @contextmanager
    def wrapper(config: RunnableConfig, *args: Any, **kwargs: Any) -> Generator[Context]:
        with enter(config, *args, **kwargs) as context:
            run = current_run()
            if run is None or switch.idle() or not _body(config):
                yield context
                return
            with _node(run, config, context):
                yield context

    return wrapper


@contextmanager
def _node(run: GraphRun, config: RunnableConfig, context: Context) -> Generator[None]:
    visit = _visit(config)
    span = run.start(visit)
    within = otel.set_value(_PLACE, visit.checkpoint_ns, trace.set_span_in_context(span, context.run(otel.get_current)))
    context.run(otel.attach, within)  # the copy goes with the body: nothing to restore
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        status = signal(span, error)
        note(span, error, quiet=QUIET, policies=run.policies)
        run.interrupted = run.interrupted or status == "interrupt"
        tell(span, {names.GRAPH_STATUS: status})
        end(span)
        run.ended(visit, span, ())


def _body(config: RunnableConfig) -> bool:
    """Whether this is the first step of a task's sequence, and of no task that we are in already."""
    manager = config.get("callbacks")
    place = config.get("metadata", {}).get("langgraph_checkpoint_ns")
    first = isinstance(manager, BaseCallbackManager) and "seq:step:1" in manager.tags
    hidden = "langsmith:hidden" in (config.get("tags") or ())
    return first and not hidden and place is not None and otel.get_value(_PLACE) != place


def _visit(config: RunnableConfig) -> Visit:
    metadata = config.get("metadata", {})
    place = str(metadata["langgraph_checkpoint_ns"])
    return Visit(
        node=str(metadata.get("langgraph_node", "")),
        task=place.rpartition(":")[2],
        step=int(metadata.get("langgraph_step", -1)),
        path=spelled(tuple(metadata.get("langgraph_path", ()))[:3]),
        triggers=tuple(metadata.get("langgraph_triggers", ())),
        checkpoint_ns=place,
    )
