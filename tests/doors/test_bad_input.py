"""What is wrong is said in words, stops nobody else, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph

from sostenuto.runtime.doors.langgraph import ChatSostenuto, ToolGuard, tool_node, wrap
from sostenuto.runtime.errors import BadMessage, BadSampling, HostClosed, ModelNotFound, Refused, RepairsSpent, TooLate
from sostenuto.runtime.host import Host
from sostenuto.tools import BadChoice, BadSchema, BadTool

from .conftest import Say, idle, said, smaller

GO: Any = {"messages": [("user", "go")]}
RAN: list[str] = []


@tool
def add(a: int, b: int) -> int:
    """Adds."""
    RAN.append("add")
    return a + b


@pytest.fixture(autouse=True)
def _nothing_ran() -> Iterator[None]:
    RAN.clear()
    yield
    RAN.clear()


def called(*calls: tuple[str, dict[str, Any]]) -> AIMessage:
    asked = [
        {"name": name, "args": args, "id": f"c{index}", "type": "tool_call"} for index, (name, args) in enumerate(calls)
    ]
    return AIMessage("", tool_calls=asked)


def tools_alone(*tools: Any, **given: Any) -> Any:
    """A graph that is nothing but a tool node."""
    graph = StateGraph(MessagesState)
    graph.add_node("tools", tool_node(tools, **given))
    graph.add_edge(START, "tools")
    return wrap(graph.compile())


def test_a_choice_of_a_tool_that_is_not_offered_names_those_that_are(model: ChatSostenuto) -> None:
    with pytest.raises(BadChoice, match="add"):
        model.bind_tools([add], tool_choice="subtract")


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "function", "function": {"description": "nameless", "parameters": {"type": "object"}}},
        {"type": "function", "function": {"name": "", "parameters": {"type": "object"}}},
        {"type": "function", "function": {"name": "f", "parameters": {"type": "no such type"}}},
        {"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}},
    ],
)
def test_a_tool_that_is_none_is_refused_where_it_is_bound(model: ChatSostenuto, spec: dict[str, Any]) -> None:
    with pytest.raises(BadTool):
        model.bind_tools([spec])


def test_a_schema_that_is_none_is_refused(model: ChatSostenuto) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no such type"}}}
    with pytest.raises(BadSchema):
        model.invoke("go", response_format=wanted)
    with pytest.raises(ValueError, match="response_format"):
        model.invoke("go", response_format={"type": "xml"})


def test_a_model_that_is_not_there_is_said_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="nowhere"):
        ChatSostenuto(model=str(tmp_path / "nowhere")).invoke("go")


def test_a_policy_that_does_not_exist_is_refused_before_a_model_is_loaded() -> None:
    with pytest.raises(ValueError, match="sostenuto"):
        ChatSostenuto(policy="hopeful").invoke("go")


def test_a_prompt_longer_than_the_pool_is_refused_with_the_numbers(host: Host) -> None:
    with smaller(host, 256) as small:
        with pytest.raises(Refused, match="the pool has 8"):
            ChatSostenuto(host=small).invoke("word " * 300)
        assert idle(small)


def test_a_prompt_longer_than_the_model_takes_is_refused_with_the_numbers(model: ChatSostenuto, host: Host) -> None:
    with pytest.raises(Refused, match=f"takes {host.engine.longest}"):
        model.invoke("word " * host.engine.longest)


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_p": 2.0}, {"max_tokens": 0}, {"stop": [""]}])
def test_a_sampling_parameter_out_of_range_is_refused(model: ChatSostenuto, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadSampling, match=next(iter(wrong))):
        model.invoke("go", **wrong)


def test_a_picture_is_refused(model: ChatSostenuto) -> None:
    picture = HumanMessage([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}])
    with pytest.raises(BadMessage, match="image_url"):
        model.invoke([picture])


def test_no_messages_are_refused(model: ChatSostenuto) -> None:
    with pytest.raises(BadMessage, match="at least one"):
        model.invoke([])


def test_an_answer_that_takes_too_long_is_given_up(model: ChatSostenuto, host: Host) -> None:
    with pytest.raises(TooLate, match="more time"):
        model.invoke("Tell me a long story.", timeout=0.0)
    assert idle(host)


def test_a_closed_host_says_that_it_is_closed(host: Host) -> None:
    with smaller(host, 256) as other:
        pass
    with pytest.raises(HostClosed, match="another"):
        ChatSostenuto(host=other).invoke("go")


def test_a_call_of_a_tool_that_nobody_has_goes_back_to_the_model(model: ChatSostenuto, say: Say) -> None:
    loose = model.model_copy(update={"constrain": False})
    say(said("subtract", a=1, b=2), said("add", a=1, b=2), "It is 3.")
    messages = wrap(create_agent(loose, [add], middleware=[ToolGuard()])).invoke(GO)["messages"]
    assert messages[-1].content == "It is 3."
    assert RAN == ["add"]


def test_arguments_that_break_the_schema_never_reach_the_tool(model: ChatSostenuto, say: Say) -> None:
    loose = model.model_copy(update={"constrain": False})
    say(said("add", a="one", b=2), said("add", a=1, b=2), "It is 3.")
    messages = wrap(create_agent(loose, [add], middleware=[ToolGuard()])).invoke(GO)["messages"]
    rejected, answered = (message for message in messages if isinstance(message, ToolMessage))
    assert (rejected.status, answered.status) == ("error", "success")
    assert "a" in rejected.text
    assert "integer" in rejected.text
    assert RAN == ["add"]


def test_an_unknown_tool_in_a_tool_node_is_answered_with_those_there_are() -> None:
    (*_, told) = tools_alone(add).invoke({"messages": [called(("subtract", {"a": 1}))]})["messages"]
    assert told.status == "error"
    assert "add" in told.content


def test_a_tool_that_raises_is_told_in_one_line() -> None:
    @tool
    def fail() -> str:
        """Fails."""
        raise LookupError("nobody knows")

    (*_, told) = tools_alone(fail).invoke({"messages": [called(("fail", {}))]})["messages"]
    assert (told.status, told.content) == ("error", "fail failed: LookupError: nobody knows")


def test_a_tool_that_never_returns_is_left_behind(model: ChatSostenuto, host: Host, say: Say) -> None:
    never = threading.Event()

    @tool
    def wait() -> str:
        """Waits."""
        never.wait()
        return "late"

    say(said("wait"), "Nothing came.")
    agent = wrap(create_agent(model, [wait], middleware=[ToolGuard(timeout=0.05)]))
    *_, told, answer = agent.invoke(GO)["messages"]
    never.set()
    assert "0.05 s" in told.content
    assert answer.content == "Nothing came."
    assert idle(host)


def test_a_coroutine_that_never_returns_is_cancelled(model: ChatSostenuto, say: Say) -> None:
    cancelled = []

    @tool
    async def wait() -> str:
        """Waits."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return "never"

    say(said("wait"), "Nothing came.")
    agent = wrap(create_agent(model, [wait], middleware=[ToolGuard(timeout=0.05)]))
    *_, told, _ = asyncio.run(agent.ainvoke(GO))["messages"]
    assert "0.05 s" in told.content
    assert cancelled == [True]


def test_repairs_are_spent_one_day(model: ChatSostenuto, host: Host, say: Say) -> None:
    loose = model.model_copy(update={"constrain": False})
    say(*[said("add", a="one", b=2)] * 3)
    agent = wrap(create_agent(loose, [add], middleware=[ToolGuard(repairs=2)]))
    with pytest.raises(RepairsSpent, match="3 tool calls in a row"):
        agent.invoke(GO)
    assert RAN == []
    assert idle(host)
