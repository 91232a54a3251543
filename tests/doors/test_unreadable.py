"""A call that nobody can read is answered like any other, and ends no run without a word."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph

from sostenuto.runtime.doors.langgraph import ChatSostenuto, ToolGuard, tool_node
from sostenuto.runtime.doors.langgraph_unreadable import (
    AnsweringNode,
    corrections,
    rejected_in_a_row,
    tools_condition,
)
from sostenuto.runtime.errors import RepairsSpent

from ..tracing.conftest import Scripted
from .conftest import Say, said
from .test_executor import BOTH, GO

RAN: list[int] = []


@tool
def count(n: int) -> str:
    """Counts."""
    RAN.append(n)
    return str(n)


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    RAN.clear()


def cut(call: str | None = "c1", args: str = '{"n": ') -> dict[str, Any]:
    return {"name": "count", "args": args, "id": call, "error": "it was cut off", "type": "invalid_tool_call"}


def calls(*numbers: int) -> list[Any]:
    return [{"name": "count", "args": {"n": n}, "id": f"v{n}", "type": "tool_call"} for n in numbers]


def graph_of(*answers: AIMessage, **given: Any) -> Any:
    """A model, and a node for its tools, as LangGraph's own examples have them."""
    model = Scripted(answers=list(answers))
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", tool_node([count], **given))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile()


@BOTH
def test_in_a_graph_of_ones_own_a_call_that_was_cut_goes_back_to_the_model(run: Any) -> None:
    answers = [AIMessage("", invalid_tool_calls=[cut()]), AIMessage("", tool_calls=calls(2)), AIMessage("two")]
    # The node awaits its tools; the model's node does not await.
    ended = run(graph_of(*answers), GO)["messages"]
    assert [type(each).__name__ for each in ended] == [
        "HumanMessage",
        "AIMessage",
        "ToolMessage",
        "AIMessage",
        "ToolMessage",
        "AIMessage",
    ]
    assert (ended[2].tool_call_id, ended[2].status) == ("c1", "error")
    assert ended[2].content == "Your tool call could not be read: it was cut off. Write it again."
    assert (RAN, ended[-1].content) == ([2], "two")


@BOTH
def test_beside_calls_that_can_be_read_it_is_answered_too_and_those_are_made(run: Any) -> None:
    answers = [AIMessage("", tool_calls=calls(1, 2), invalid_tool_calls=[cut(), cut(None)]), AIMessage("done")]
    ended = run(graph_of(*answers), GO)["messages"]
    assert [each.tool_call_id for each in ended if isinstance(each, ToolMessage)] == ["v1", "v2", "c1"]
    assert isinstance(ended[5], HumanMessage), "one without an id cannot be answered as a call"
    assert sorted(RAN) == [1, 2]


def test_a_node_gives_up_on_a_model_that_goes_on_like_this() -> None:
    graph = graph_of(AIMessage("", invalid_tool_calls=[cut()]), repairs=2)
    with pytest.raises(RepairsSpent, match="3 tool calls in a row"):
        graph.invoke(GO)


@BOTH
def test_in_an_agent_it_goes_back_to_the_model_before_the_run_goes_on(run: Any) -> None:
    answers = [AIMessage("", invalid_tool_calls=[cut()]), AIMessage("", tool_calls=calls(2)), AIMessage("two")]
    agent = create_agent(Scripted(answers=answers), [count], middleware=[ToolGuard()])
    ended = run(agent, GO)["messages"]
    assert (RAN, ended[-1].content) == ([2], "two")


@BOTH
def test_an_agent_whose_model_never_writes_one_that_can_be_read_ends_with_the_cause(run: Any) -> None:
    agent = create_agent(
        Scripted(answers=[AIMessage("", invalid_tool_calls=[cut()])]), [count], middleware=[ToolGuard(repairs=2)]
    )
    with pytest.raises(RepairsSpent, match=r"3 answers in a row.*it was cut off"):
        run(agent, GO)


@BOTH
def test_in_an_agent_every_call_beside_one_that_can_be_read_has_its_answer(run: Any) -> None:
    answers = [AIMessage("", tool_calls=calls(1), invalid_tool_calls=[cut()]), AIMessage("done")]
    agent = create_agent(Scripted(answers=answers), [count], middleware=[ToolGuard()])
    ended = run(agent, GO)["messages"]
    assert sorted(each.tool_call_id for each in ended if isinstance(each, ToolMessage)) == ["c1", "v1"]
    assert (RAN, ended[-1].content) == ([1], "done")


def test_our_own_models_calls_that_are_cut_off_are_handed_back(model: ChatSostenuto, say: Say) -> None:
    loose = model.model_copy(update={"constrain": False})
    say('<tool_call>{"name": "count", "arguments": {"n": </tool_call>', said("count", n=7), "Seven.")
    agent = create_agent(loose, [count], middleware=[ToolGuard()])
    assert agent.invoke(GO)["messages"][-1].content == "Seven."
    assert RAN == [7]


def test_what_is_said_of_them_is_counted_until_a_call_is_made_or_somebody_speaks() -> None:
    broken = AIMessage("", invalid_tool_calls=[cut(), cut(None)])
    told = corrections(broken)
    assert [each.type for each in told] == ["tool", "human"]
    assert rejected_in_a_row([HumanMessage("go"), broken, *told]) == 2
    assert rejected_in_a_row([broken, *told, HumanMessage("and?"), broken]) == 0
    assert tools_condition({"messages": [broken]}) == "tools"
    assert tools_condition({"messages": [AIMessage("done")]}) == tools_condition({"messages": []}) == "__end__"
    assert isinstance(tool_node([count]), AnsweringNode)
