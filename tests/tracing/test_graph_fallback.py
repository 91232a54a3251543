"""A LangGraph whose runner has other names: nodes still have spans, and what is lost is what is said to be lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langgraph.graph import START, StateGraph
from langgraph.pregel import _runner
from opentelemetry.sdk.trace import TracerProvider

from sostenuto.tests.tracing.programs import PROGRAMS, judge
from sostenuto.tests.tracing.programs.adapters import Ours, Promise
from sostenuto.tests.tracing.programs.parts import EMPTY, Seen
from sostenuto.tracing import graph, instrument
from sostenuto.tracing import graph_tasks as tasks

LOST = (
    "tried_again",  # each attempt has a node span of its own
    "an_update_that_is_none",  # fails after the body
    "a_router_that_fails",
    "decided_by_a_function",
    "cancels_itself",  # an error only to the runner
)
"""Programs of what happens round a body; so are all of the category `retries`."""


class Bodies(Ours):
    """Ours, without what only a task tells. In another process there is no fall-back to try."""

    promises: frozenset[Promise] = frozenset({"task", "superstep", "visit", "resume"})

    def start(self, provider: TracerProvider) -> Callable[[], None]:
        return instrument(provider)


@pytest.fixture
def renamed(monkeypatch: Any) -> None:
    monkeypatch.setattr(graph, "_TASKS", ((_runner, "run_with_another_name", tasks.traced_task),))


KEPT = [each for each in PROGRAMS if each.category != "retries" and not any(word in each.name for word in LOST)]
CATEGORIES = sorted({each.category for each in KEPT} - {"travel", "shapes"})


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.usefixtures("renamed")
def test_programs_pass_by_their_bodies_alone(category: str) -> None:
    chosen = [each for each in KEPT if each.category == category and each.runs_here]
    faults = [(each.name, fault) for each in chosen for fault in judge(each, Bodies()).faults]
    assert faults == []


@pytest.mark.usefixtures("renamed")
def test_it_is_said_once_and_undone_exactly(spans: Any, caplog: Any) -> None:
    place = graph._BODIES[0][0]
    before = vars(place)["set_config_context"]
    undo = instrument(spans.provider)
    assert vars(place)["set_config_context"] is not before
    whole = StateGraph(Seen).add_node("a", lambda state: {"seen": ["a"]}).add_edge(START, "a").compile()
    whole.invoke(EMPTY)
    asyncio.run(whole.ainvoke(EMPTY))
    undo()
    assert vars(place)["set_config_context"] is before
    assert [each for each in caplog.messages if "run_with_another_name" in each] == caplog.messages
    assert len(caplog.messages) == 1
    node = spans.named("run_step a")[0]
    assert spans.path(node) == ["invoke_workflow LangGraph", "superstep 1", "run_step a"]
    assert node.attributes["langgraph.status"] == "done"
