"""Agents over the chat model: what is kept while tools run, and that all of it is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, interrupt

from sostenuto.runtime.answer import Answering
from sostenuto.runtime.ask import Ask, Message
from sostenuto.runtime.doors.langgraph import BoundSaver, ChatSostenuto, ToolGuard, tool_node, wrap
from sostenuto.runtime.host import Host
from sostenuto.scheduler import Hold, Preempt, Release

from .conftest import Say, Watched, idle, said, script, smaller

ASK: Any = {"messages": [("user", "What is the weather in Tokyo?")]}


@tool
def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return f"sunny in {city}, 21 C"


def alone() -> Any:
    """A tenant that nobody shares a context with: what other tests left in the pool is not found."""
    return {"configurable": {"tenant": str(uuid4())}}


def sync(agent: Any) -> Any:
    return agent.invoke(ASK, alone())


def in_a_loop(agent: Any) -> Any:
    return asyncio.run(agent.ainvoke(ASK, alone()))


def streamed(agent: Any) -> Any:
    return list(agent.stream(ASK, alone(), stream_mode="values"))[-1]


def streamed_in_a_loop(agent: Any) -> Any:
    async def run() -> Any:
        return [state async for state in agent.astream(ASK, alone(), stream_mode="values")][-1]

    return asyncio.run(run())


def token_by_token(agent: Any) -> Any:
    """The model streams then, and LangChain does not tell a streaming model in which run it is."""
    return [told for mode, told in agent.stream(ASK, alone(), stream_mode=["messages", "values"]) if mode == "values"][
        -1
    ]


def token_by_token_in_a_loop(agent: Any) -> Any:
    async def run() -> Any:
        both = agent.astream(ASK, alone(), stream_mode=["messages", "values"])
        return [told async for mode, told in both if mode == "values"][-1]

    return asyncio.run(run())


WAYS = pytest.mark.parametrize(
    "run", [sync, in_a_loop, streamed, streamed_in_a_loop, token_by_token, token_by_token_in_a_loop]
)


def ours(message: AIMessage) -> dict[str, Any]:
    told: dict[str, Any] = message.response_metadata["sostenuto"]
    return told


def written_by_hand(model: Any, tools: ToolNode) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", tools)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile()


def assert_only_the_new_was_computed(messages: list[Any]) -> None:
    """The second prompt begins with the first and its answer; only the answer's last token was never computed."""
    first, second = (message for message in messages if isinstance(message, AIMessage))
    before, after = first.usage_metadata, second.usage_metadata
    assert before is not None
    assert after is not None
    # The token that ends the answer is part of neither: the template writes it.
    known = before["input_tokens"] + before["output_tokens"] - 1
    assert after["input_token_details"]["cache_read"] == known
    assert after["input_token_details"]["cache_creation"] == after["input_tokens"] - known


@WAYS
def test_an_agent_computes_after_a_tool_only_what_is_new(
    model: ChatSostenuto, say: Say, run: Callable[[Any], Any]
) -> None:
    say(said("get_weather", city="Tokyo"), "It is sunny.")
    agent = wrap(create_agent(model, [get_weather]))
    messages = run(agent)["messages"]
    first, second = (ours(message)["program"] for message in messages if isinstance(message, AIMessage))
    assert first == second
    assert idle(model.served_by), "what was held is let go when the run ends"
    assert [type(message).__name__ for message in messages] == ["HumanMessage", "AIMessage", "ToolMessage", "AIMessage"]
    assert messages[-1].content == "It is sunny."
    assert_only_the_new_was_computed(messages)


def test_the_model_itself_calls_the_tool_and_answers(real_model: ChatSostenuto) -> None:
    messages = wrap(create_agent(real_model, [get_weather])).invoke(ASK, alone())["messages"]
    (call,) = messages[1].tool_calls
    assert (call["name"], call["args"]["city"].title()) == ("get_weather", "Tokyo")
    assert "21" in messages[-1].content
    assert_only_the_new_was_computed(messages)


@pytest.mark.parametrize("make", [ToolNode, tool_node])
def test_a_graph_written_by_hand_needs_nothing_but_wrap(
    model: ChatSostenuto, say: Say, make: Callable[[Any], ToolNode]
) -> None:
    say(said("get_weather", city="Tokyo"), "It is sunny.")
    agent = wrap(written_by_hand(model.bind_tools([get_weather]), make([get_weather])))
    assert_only_the_new_was_computed(agent.invoke(ASK, alone())["messages"])


def test_wrapping_twice_is_wrapping_once(model: ChatSostenuto) -> None:
    agent = wrap(create_agent(model, [get_weather]))
    assert wrap(agent) is agent


def test_a_graph_that_was_not_compiled_is_refused() -> None:
    with pytest.raises(TypeError, match="compile"):
        wrap(StateGraph(MessagesState))  # type: ignore[type-var]


def test_a_context_is_held_while_the_tool_runs_and_let_go_at_the_end(
    model: ChatSostenuto, host: Host, say: Say
) -> None:
    seen = []

    @tool
    def look() -> str:
        """Looks."""
        seen.append(host.loop.ask())
        return "seen"

    say(said("look"), "Done.")
    wrap(create_agent(model, [look])).invoke(ASK)
    assert "held by 1>" in seen[0]
    assert idle(host)


def test_what_is_held_is_let_go_when_the_run_fails(model: ChatSostenuto, host: Host, say: Say) -> None:
    watched = Watched(host)

    @tool
    def fail() -> str:
        """Fails."""
        raise LookupError("nobody knows")

    say(said("fail"))
    with pytest.raises(LookupError, match="nobody"):
        wrap(create_agent(model, [fail])).invoke(ASK)
    assert idle(host)
    assert len(watched.of(Hold)) == 1
    assert [release.why for release in watched.of(Release)] == ["its program failed"]


def test_an_interrupt_ends_no_run_and_a_resume_goes_on(model: ChatSostenuto, host: Host, say: Say) -> None:
    @tool
    def ask_person() -> str:
        """Asks."""
        return str(interrupt("well?"))

    say(said("ask_person"), "Thank you.")
    agent = wrap(create_agent(model, [ask_person], checkpointer=InMemorySaver()))
    where: Any = {"configurable": {"thread_id": "waits"}}
    agent.invoke(ASK, where)
    host.loop.ask()  # all that was told has been heard
    assert not host.loop.kernel.books.programs, "a person may take days: nothing is held for as long"
    messages = agent.invoke(Command(resume="yes"), where)["messages"]
    assert messages[-1].content == "Thank you."
    assert_only_the_new_was_computed(messages)
    assert isinstance(agent.checkpointer, BoundSaver)
    agent.checkpointer.delete_thread("waits")


async def test_cancelling_a_run_while_it_speaks_frees_everything(model: ChatSostenuto, host: Host) -> None:
    agent = wrap(create_agent(model.model_copy(update={"max_tokens": 2000}), [get_weather]))
    spoken = asyncio.Event()

    async def run() -> None:
        asked: Any = {"messages": [("user", "Tell me a long story.")]}
        async for _ in agent.astream(asked, stream_mode="messages"):
            spoken.set()

    task = asyncio.create_task(run())
    await spoken.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert idle(host)


async def test_a_stream_that_is_dropped_frees_everything(model: ChatSostenuto, host: Host) -> None:
    stream: Any = model.astream("Tell me a long story.", max_tokens=2000)
    await anext(stream)
    await stream.aclose()
    assert idle(host)


def test_a_blocking_stream_that_is_dropped_frees_everything(model: ChatSostenuto, host: Host) -> None:
    stream: Any = model.stream("Tell me a long story.", max_tokens=2000)
    next(stream)
    stream.close()
    assert idle(host)


@pytest.mark.parametrize(("policy", "computes_again"), [("sostenuto", False), ("forgetful", True)])
def test_of_two_rivals_in_a_small_pool_the_held_one_computes_only_what_is_new(
    host: Host, policy: str, computes_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first runs its tool, the second fills the pool."""
    with smaller(host, 1024, policy) as small:
        say = script(small, monkeypatch)
        watched = Watched(small)
        rivals: list[Answering] = []

        @tool
        def meet_rival() -> str:
            """Meanwhile another asks for more than is left: in order of events, before the first comes back."""
            say("I was here.", "Done.")
            rivals.append(small.ask(Ask((Message("user", "word " * 700),))))
            return "met"

        say(said("meet_rival"))
        messages = wrap(create_agent(ChatSostenuto(host=small), [meet_rival])).invoke(ASK)["messages"]
        assert rivals[0].wait().text == "I was here."
        first, second = (message for message in messages if isinstance(message, AIMessage))
        reused = second.usage_metadata["input_token_details"]["cache_read"]  # type: ignore[index]
        known = first.usage_metadata["total_tokens"] - 1  # type: ignore[index]
        assert (reused < known) is computes_again
        assert not watched.of(Preempt)
        assert idle(small)


def test_tenants_share_no_context(model: ChatSostenuto, say: Say) -> None:
    """However a tenant is named: to a graph, to a model in it, to a model alone, in whatever way it is called."""
    say(*["Yes."] * 5)
    graph = written_by_hand(model, ToolNode([get_weather]))
    reused = [
        graph.invoke(ASK, alone())["messages"][-1].usage_metadata["input_token_details"]["cache_read"],
        wrap(graph).invoke(ASK, alone())["messages"][-1].usage_metadata["input_token_details"]["cache_read"],
        model.invoke(ASK["messages"], alone()).usage_metadata["input_token_details"]["cache_read"],  # type: ignore
        asyncio.run(model.ainvoke(ASK["messages"], alone())).usage_metadata["input_token_details"]["cache_read"],  # type: ignore
        list(model.stream(ASK["messages"], alone()))[-1].usage_metadata["input_token_details"]["cache_read"],  # type: ignore
    ]
    assert reused == [0] * 5


def test_a_cut_off_call_is_asked_for_again(model: ChatSostenuto, say: Say) -> None:
    say('<tool_call>{"name": "get_weather", "argu', said("get_weather", city="Tokyo"), "It is sunny.")
    agent = wrap(create_agent(model, [get_weather], middleware=[ToolGuard()]))
    messages = agent.invoke(ASK)["messages"]
    assert [message.content for message in messages if isinstance(message, ToolMessage)] == ["sunny in Tokyo, 21 C"]
