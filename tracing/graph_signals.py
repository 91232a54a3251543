"""LangGraph's signals, which travel as exceptions and are no failures; and what all its wrappers share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langgraph import errors
from langgraph.errors import GraphBubbleUp, GraphInterrupt, ParentCommand
from langgraph.types import Interrupt, Send
from opentelemetry.trace import Span

from . import names
from .spans import Quiet, idle

QUIET: Quiet = (GraphBubbleUp,)
_DRAINED: Quiet = tuple(kind for kind in (getattr(errors, "GraphDrained", None),) if kind is not None)  # from 1.2 on


@dataclass(slots=True)
class Switch:
    """Whether the wrappers trace. Turned off, one that somebody else has wrapped over just passes through."""

    on: bool = True
    supersteps: bool = True

    def idle(self) -> bool:
        return not self.on or idle()


def is_agent(metadata: Mapping[str, Any]) -> bool:
    """Whether `create_agent` made the graph that has this metadata, with a name or without."""
    return metadata.get("ls_integration") == "langchain_create_agent"


def signal(span: Span, error: BaseException | None) -> str:
    """Notes a signal of LangGraph as an event, and says what a run that ends with this has come to."""
    match error:
        case None:
            return "done"
        case _ if isinstance(error, _DRAINED):
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


def _goal(goto: object) -> str:
    return goto.node if isinstance(goto, Send) else str(goto)
