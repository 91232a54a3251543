"""Graphs tell the schedule how many steps lie before their next call of a model; answers, what their calls are like."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command

from sostenuto.runtime.doors.langgraph import ChatSostenuto, wrap
from sostenuto.runtime.doors.langgraph_steps import Steps, place_of
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.host import Host
from sostenuto.scheduler import Event, Hold, Pause, Planned, Policy, Program, Retention, Setting, World

from .conftest import Say, Watched, said, script, smaller


@tool
def look(at: str, kind: Literal["near", "far"] = "near") -> str:
    """Look at something."""
    return "a tree"


def alone() -> Any:
    return {"configurable": {"tenant": str(uuid4())}}


ASK: Any = {"messages": [("user", "What is there?")]}


@pytest.fixture
def planned(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that the host was told, from here on."""
    found: list[int] = []
    tell = host.tell

    def spy(event: Event) -> None:
        if isinstance(event, Planned):
            found.append(event.steps)
        tell(event)

    monkeypatch.setattr(host, "tell", spy)
    return found


def speaks(model: Any) -> Any:
    return lambda state: {"messages": [model.invoke(state["messages"])]}


def nothing(state: MessagesState) -> Any:
    return {}


def chain(model: Any, *tools: Any) -> Any:
    """A model, its tools, and two nodes more before the model comes again."""
    graph = StateGraph(MessagesState)
    graph.add_node("model", speaks(model))
    graph.add_node("tools", ToolNode(list(tools)))
    graph.add_node("sort", nothing)
    graph.add_node("cut", nothing)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "sort")
    graph.add_edge("sort", "cut")
    graph.add_edge("cut", "model")
    return graph.compile()


def test_an_agent_is_two_steps_from_its_next_call_and_one_while_its_tools_run(
    model: ChatSostenuto, say: Say, planned: list[int]
) -> None:
    say(said("look", at="it"), "A tree.")
    wrap(create_agent(model, [look])).invoke(ASK, alone())
    assert planned == [2, 1, 2]


def test_each_node_on_the_way_is_a_step_less(model: ChatSostenuto, say: Say, planned: list[int]) -> None:
    say(said("look", at="it"), "A tree.")
    wrap(chain(model.bind_tools([look]), look)).invoke(ASK, alone())
    assert planned == [4, 3, 2, 1, 4]


def test_a_second_run_knows_where_the_model_is_called_before_it_is(
    model: ChatSostenuto, say: Say, planned: list[int]
) -> None:
    graph = StateGraph(MessagesState)
    graph.add_node("one", speaks(model))
    graph.add_node("rest", nothing)
    graph.add_node("two", speaks(model))
    for source, target in ((START, "one"), ("one", "rest"), ("rest", "two"), ("two", END)):
        graph.add_edge(source, target)
    agent = wrap(graph.compile())
    say("a", "b", "c", "d")
    agent.invoke(ASK, alone())
    assert planned == [], "nobody knew that the second node would call a model, and behind it none does"
    agent.invoke(ASK, alone())
    assert planned == [2, 1]


def test_a_subgraph_counts_its_own_steps_and_behind_its_end_those_of_the_graph_round_it(
    model: ChatSostenuto, say: Say, planned: list[int]
) -> None:
    def again(state: MessagesState) -> str:
        return "agent" if sum(isinstance(message, AIMessage) for message in state["messages"]) < 3 else END

    graph = StateGraph(MessagesState)
    graph.add_node("agent", chain(model.bind_tools([look]), look))
    graph.add_node("check", nothing)
    graph.add_edge(START, "agent")
    graph.add_edge("agent", "check")
    graph.add_conditional_edges("check", again, ["agent", END])
    say(said("look", at="it"), "A tree.", "Still a tree.")
    wrap(graph.compile()).invoke(ASK, alone())
    # In the agent; then `check` is one step before the agent, in which the model comes first.
    assert planned == [4, 3, 2, 1, 4, 1, 4, 1]


def test_of_nodes_side_by_side_the_one_that_is_nearest_to_a_model_counts(
    model: ChatSostenuto, say: Say, planned: list[int]
) -> None:
    graph = StateGraph(MessagesState)
    graph.add_node("first", speaks(model))
    graph.add_node("long", nothing)
    graph.add_node("way", nothing)
    graph.add_node("short", nothing)
    graph.add_node("last", speaks(model), defer=True)
    edges = ((START, "first"), ("first", "long"), ("first", "short"), ("long", "way"), ("way", "last"))
    for source, target in (*edges, ("short", "last"), ("last", END)):
        graph.add_edge(source, target)
    agent = wrap(graph.compile())
    say(*"abcd")
    agent.invoke(ASK, alone())
    agent.invoke(ASK, alone())
    assert planned == [2, 1]


def test_of_ways_that_no_edge_shows_and_of_agents_called_as_tools_nothing_is_told(
    model: ChatSostenuto, say: Say, planned: list[int]
) -> None:
    def jump(state: MessagesState) -> Any:
        seen = sum(isinstance(message, AIMessage) for message in state["messages"])
        return Command(goto="model" if seen < 2 else END)

    graph = StateGraph(MessagesState)
    graph.add_node("model", speaks(model))
    graph.add_node("jump", jump)
    graph.add_edge(START, "model")
    graph.add_edge("model", "jump")
    say("a", "b")
    wrap(graph.compile()).invoke(ASK, alone())
    assert planned == []

    inner: Any = create_agent(model, [look])

    @tool
    def delegate(task: str) -> str:
        """Let somebody else do it."""
        return str(inner.invoke({"messages": [("user", task)]})["messages"][-1].content)

    say(said("delegate", task="look"), said("look", at="it"), "A tree.", "It is a tree.")
    wrap(create_agent(model, [delegate])).invoke(ASK, alone())
    # One step to the tools, and from then on it is known that they call the model too; inside the tool nothing is told.
    assert planned == [2, 1]


def test_a_place_is_told_by_its_nodes_whatever_their_tasks() -> None:
    assert place_of("agent:1b2c|tools:9f") == ("agent", "tools")
    assert place_of("agent:1b2c|1|tools:9f") == ("agent", "tools")
    assert place_of("") == ()
    steps = Steps(None)
    steps.called(("a",))
    assert (steps.soonest([("a",)]), repr(steps)) == (None, "<Steps to ['a']>")


def test_kvflow_holds_by_the_steps_that_the_graph_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with smaller(host, 4096, "kvflow") as other:
        script(other, monkeypatch)(said("count", at="it"), "A tree.")
        watched = Watched(other)
        seen: list[int | None] = []
        model = ChatSostenuto(host=other, max_tokens=48)

        @tool
        def count(at: str) -> str:
            """Look at something."""
            other.loop.ask()  # after all that was told so far
            seen.extend(program.steps for program in other.loop.kernel.books.programs.values())
            return "a tree"

        wrap(chain(model.bind_tools([count]), count)).invoke(ASK, alone())
        other.loop.ask()
    assert [hold.why for hold in watched.of(Hold)] == ["4 steps to its next use"]
    assert seen == [3]


def by_forecast(world: World, program: Program, pause: Pause) -> Retention:
    curve = world.forecasts.of(pause.tools, pause.shape).curve
    return Retention(curve.quantile(0.9), pause.shape)


@pytest.fixture
def setting() -> Setting:
    known = Setting()
    for _ in range(40):
        known.forecasts.observe("look", 2.0, "look(at:text4 kind:near)")
        known.forecasts.observe("look", 300.0, "look(at:text4 kind:far)")
    return known


@pytest.fixture
def learnt(host: Host, setting: Setting) -> Iterator[Host]:
    """A host whose policy holds for as long as calls of one shape took."""
    assert isinstance(host.engine, TorchEngine)
    engine = TorchEngine(host.engine.model, pool_tokens=4096)
    with Host(engine, policy=Policy(name="mine", retain=by_forecast), setting=setting) as other:
        yield other


def test_a_pause_is_forecast_by_what_the_tool_was_given(
    learnt: Host, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    say, watched = script(learnt, monkeypatch), Watched(learnt)
    agent = wrap(create_agent(ChatSostenuto(host=learnt, max_tokens=48), [look]))
    for kind in ("near", "far"):
        say(said("look", at="it", kind=kind), "A tree.")
        agent.invoke(ASK, alone())
    learnt.loop.ask()
    near, far = watched.of(Hold)
    assert (near.why, far.why) == ("look(at:text4 kind:near)", "look(at:text4 kind:far)")
    assert far.until - near.until > 200
    shapes = setting.forecasts.data()["tools"]["look"]["shapes"]
    assert {shape: one["count"] for shape, one in shapes.items()} == {near.why: 41, far.why: 41}
