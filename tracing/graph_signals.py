"""LangGraph's signals, which travel as exceptions and are no failures; and what all its wrappers share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from langgraph.errors import GraphBubbleUp, GraphDrained, GraphInterrupt, ParentCommand
from langgraph.types import Interrupt, Send
from opentelemetry.trace import Span

from . import names
from .spans import Quiet, suppressed

QUIET: Quiet = (GraphBubbleUp,)


@dataclass(slots=True)
class Switch:
    """Whether the wrappers trace. Turned off, one that somebody else has wrapped over just passes through."""

    on: bool = True
    supersteps: bool = True

    def idle(self) -> bool:
        return not self.on or suppressed()


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


async def aclose(inner: AsyncGenerator[Any]) -> None:
    """Closes a generator, unless somebody else is at it."""
    try:
        await inner.aclose()
    except RuntimeError:
        # An event loop that shuts down closes all its generators at once: somebody else is closing this one.
        if not getattr(inner, "ag_running", False):
            raise


def _goal(goto: object) -> str:
    return goto.node if isinstance(goto, Send) else str(goto)
