"""Handoffs: commands that say where to go, within a graph, to the graph above, between agents."""

from __future__ import annotations

from typing import Annotated, Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send

from .ground import Ground
from .parts import ASK, EMPTY, THREAD, Awaited, Seen, calls, chain
from .suite import BOTH, program


@program("handoffs", ways=BOTH)
def a_command_says_where_to_go(ground: Ground) -> Any:
    def then(state: Any) -> Any:
        return Command(update={"seen": ["a"]}, goto="b" if len(state["seen"]) < 3 else END)

    graph: Any = StateGraph(Seen).add_node("a", ground.node("a", then), destinations=("b", END))
    graph.add_node("b", ground.node("b")).add_edge(START, "a").add_edge("b", "a")
    return ground.run(graph.compile(), EMPTY)


@program("handoffs", ways=BOTH)
def a_command_goes_to_several_and_sends(ground: Ground) -> Any:
    def then(state: Any) -> Any:
        return Command(goto=["b", Send("c", {"seen": ["sent"]})])

    graph: Any = StateGraph(Seen).add_node("a", ground.node("a", then), destinations=("b", "c"))
    graph.add_node("b", ground.node("b")).add_node("c", ground.node("c")).add_edge(START, "a")
    ground.linked("b", "a")
    ground.linked("c", "a")
    return ground.run(graph.compile(), EMPTY)


def _leaving(ground: Ground, goto: Any) -> Any:
    return ground.node("leave", lambda state: Command(goto=goto, update={"seen": ["left"]}, graph=Command.PARENT))


@program("handoffs", ways=BOTH)
def a_command_to_the_graph_above(ground: Ground) -> Any:
    inner = chain(ground, "leave", "never", leave=_leaving(ground, "other")).compile(name="inner")
    outer: Any = StateGraph(Seen).add_node("sub", inner, destinations=("other",))
    outer.add_node("other", ground.node("other")).add_edge(START, "sub")
    return ground.run(outer.compile(name="outer"), EMPTY)


@program("handoffs", ways=BOTH)
def a_send_to_the_graph_above(ground: Ground) -> Any:
    goto = [Send("other", {"seen": [each]}) for each in "xy"]
    inner = chain(ground, "leave", leave=_leaving(ground, goto)).compile(name="inner")
    outer: Any = StateGraph(Seen).add_node("sub", inner, destinations=("other",))
    outer.add_node("other", ground.node("other")).add_edge(START, "sub")
    return ground.run(outer.compile(name="outer"), EMPTY)


@program("handoffs", ways=BOTH)
def two_graphs_hand_over_to_each_other(ground: Ground) -> Any:
    """As a swarm does, each leaving for the other, with a checkpointer."""

    def then(goto: str) -> Any:
        def leave(state: Any) -> Any:
            to = goto if len(state["seen"]) < 4 else END
            return Command(goto=to, update={"seen": [f"to {to}"]}, graph=Command.PARENT)

        return leave

    outer: Any = StateGraph(Seen)
    for name, other in (("red", "blue"), ("blue", "red")):
        body = ground.node("leave", then(other), key=f"leave {name}")
        outer.add_node(name, chain(ground, "leave", leave=body).compile(name=name), destinations=(other, END))
    whole = outer.add_edge(START, "red").compile(name="swarm", checkpointer=InMemorySaver())
    return ground.run(whole, EMPTY, THREAD)


@program("handoffs", ways=BOTH)
def a_tool_hands_over_to_another_agent(ground: Ground) -> Any:
    @tool
    def to_bob(tool_call_id: Annotated[str, InjectedToolCallId], config: RunnableConfig) -> Any:
        """Hands over to Bob."""
        with ground.probe("handing over"):
            said = ToolMessage("over to bob", tool_call_id=tool_call_id)
            return Command(goto="bob", update={"messages": [said]}, graph=Command.PARENT)

    anna = create_agent(Awaited(answers=[calls(("to_bob", {}))], ground=ground), [to_bob], name="anna")
    bob = create_agent(Awaited(answers=[AIMessage("bob here")], ground=ground), [], name="bob")
    graph: Any = StateGraph(MessagesState).add_node("anna", anna, destinations=("bob",)).add_node("bob", bob)
    return ground.run(graph.add_edge(START, "anna").compile(name="team"), ASK)


@program("handoffs", ways=BOTH)
def a_supervisor_and_two_workers(ground: Ground) -> Any:
    plan = ["red", "blue", "red", END]

    def then(state: Any) -> Any:
        return Command(goto=plan[len(state["seen"])])

    graph: Any = StateGraph(Seen).add_node("chief", ground.node("chief", then), destinations=("red", "blue", END))
    for name in ("red", "blue"):
        graph.add_node(name, chain(ground, "work").compile(name=name)).add_edge(name, "chief")
    return ground.run(graph.add_edge(START, "chief").compile(name="team"), EMPTY)


@program("handoffs", ways=BOTH)
def a_command_two_levels_up_in_turn(ground: Ground) -> Any:
    """The lowest graph leaves for the middle one, a node of which leaves for the top."""
    lowest = chain(ground, "leave", leave=_leaving(ground, "up")).compile(name="lowest")
    middle: Any = StateGraph(Seen).add_node("sub", lowest, destinations=("up",)).add_edge(START, "sub")
    middle.add_node("up", ground.node("up", lambda state: Command(goto="end", graph=Command.PARENT)))
    top: Any = StateGraph(Seen).add_node("mid", middle.compile(name="middle"), destinations=("end",))
    top.add_node("end", ground.node("end")).add_edge(START, "mid")
    return ground.run(top.compile(name="top"), EMPTY)
