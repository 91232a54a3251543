"""One process with one instrumentor switched on: runs what it is told, and says what it cost.

It reads the name of a workload a line and answers a line of JSON: the processor time of all threads, in seconds,
and how many nodes ran and how many spans ended in it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Callable
from operator import add
from time import process_time
from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

from .instrumentors import NONE, OURS, PEERS, PLAIN, SILENT, use

BY_HAND = "a span by hand in each node"
"""No instrumentor: the node's own code opens a span with as many attributes as ours have."""


class Numbers(TypedDict):
    """The state of the loop."""

    left: int
    seen: Annotated[list[int], add]


class Counting(SpanProcessor):
    """Counts the spans that end, and does nothing else."""

    def __init__(self) -> None:
        self.ended = 0

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing."""

    def on_end(self, span: ReadableSpan) -> None:
        """One more."""
        self.ended += 1


class Scripted(BaseChatModel):
    """Asks for the tool every time but the last, at once."""

    turns: int
    model_name: str = "scripted"
    """Some trace no model that does not say its name."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **more: Any) -> Any:
        """Itself: it knows what it will say."""
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **more: Any,
    ) -> ChatResult:
        asked = sum(isinstance(each, AIMessage) for each in messages)
        calls = [{"name": "look", "args": {"at": asked}, "id": f"call-{asked}"}] if asked < self.turns else []
        usage: Any = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
        said = AIMessage("looking" if calls else "done", tool_calls=calls, usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=said)])


@tool
def look(at: int) -> str:
    """Looks at something."""
    return f"seen {at}"


def loop(*, body: Callable[[Numbers], Any], abody: Callable[[Numbers], Any]) -> tuple[Any, Any]:
    """A graph of one node that goes to itself, for sync and for async calls, with no work in it."""

    def make(node: Callable[[Numbers], Any]) -> Any:
        graph: Any = StateGraph(Numbers)
        graph.add_node("step", node, destinations=("step", END))
        graph.add_edge(START, "step")
        return graph.compile(name="loop")

    return make(body), make(abody)


def empty(state: Numbers) -> Any:
    """What a node does that does nothing."""
    left = state["left"] - 1
    return Command(update={"left": left}, goto="step" if left else END)


async def aempty(state: Numbers) -> Any:
    """The same in an event loop."""
    return empty(state)


class Worker:
    """The workloads, and what they run under."""

    def __init__(self, name: str, steps: int, turns: int) -> None:
        self._tally = Counting()
        self._provider = TracerProvider()
        self._provider.add_span_processor(self._tally)
        by_hand = name == BY_HAND
        known = {each.name: each for each in (NONE, OURS, PLAIN, SILENT, *PEERS)}
        self._on = use(NONE if by_hand else known[name], self._provider)
        self._tracer = self._provider.get_tracer("by hand")
        self._loop, self._aloop = loop(
            body=self._spanned if by_hand else empty, abody=self._aspanned if by_hand else aempty
        )
        self._agent: Any = create_agent(Scripted(turns=turns), [look], name="agent")
        self._steps = steps
        self._visits = 2 * turns + 1

    def measure(self, workload: str) -> dict[str, float]:
        """Runs one workload."""
        nodes = self._visits if "agent" in workload else self._steps
        work = getattr(self, f"_{workload}")
        gc.collect()
        ended = self._tally.ended
        start = process_time()
        work()
        self._on.flush()
        return {"cpu": process_time() - start, "nodes": nodes, "spans": self._tally.ended - ended}

    def _config(self) -> Any:
        return {"recursion_limit": 100_000, "callbacks": list(self._on.callbacks)}

    def _sync_loop(self) -> None:
        self._loop.invoke({"left": self._steps, "seen": []}, self._config())

    def _async_loop(self) -> None:
        asyncio.run(self._aloop.ainvoke({"left": self._steps, "seen": []}, self._config()))

    def _sync_agent(self) -> None:
        self._agent.invoke({"messages": [("user", "go")]}, self._config())

    def _async_agent(self) -> None:
        asyncio.run(self._agent.ainvoke({"messages": [("user", "go")]}, self._config()))

    def _span(self) -> None:
        """As many spans as the loop has nodes, and nothing else."""
        for number in range(self._steps):
            with self._current(number):
                pass

    def _spanned(self, state: Numbers) -> Any:
        with self._current(state["left"]):
            return empty(state)

    async def _aspanned(self, state: Numbers) -> Any:
        with self._current(state["left"]):
            return empty(state)

    def _current(self, number: int) -> Any:
        return self._tracer.start_as_current_span("run_step step", attributes=_FACTS | {"langgraph.step": number})


_FACTS: dict[str, Any] = {
    "gen_ai.operation.name": "run_step",
    "gen_ai.step.name": "step",
    "langgraph.node": "step",
    "langgraph.task.id": "5a1eb1ba-df23-be0f-7600-3d85c300c671",
    "langgraph.triggers": ("branch:to:step",),
    "langgraph.checkpoint_ns": "step:5a1eb1ba-df23-be0f-7600-3d85c300c671",
    "langgraph.path": "__pregel_pull/step",
    "langgraph.visit": 2,
    "langgraph.status": "done",
    "langgraph.attempts": 1,
    "langgraph.goto": ("step",),
}


def main(name: str, steps: str, turns: str) -> None:
    # What a peer prints must not come among the answers.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        worker = Worker(name, int(steps), int(turns))
        for line in sys.stdin:
            answers.write(json.dumps(worker.measure(line.strip())) + "\n")
            answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
