"""Interrupts and what takes them up, in this process."""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from .ground import Ground
from .parts import ASK, EMPTY, THREAD, Awaited, Seen, a_tool, calls, chain
from .suite import BOTH, program


def asks(*questions: str) -> Any:
    """A node's work: to ask, and to say the answers."""
    return lambda state: {"seen": [interrupt(each) for each in questions]}


@program("pauses", ways=BOTH)
def a_question_and_its_answer(ground: Ground) -> Any:
    body = ground.node("ask", asks("well?"))
    graph = chain(ground, "a", "ask", "b", ask=body).compile(checkpointer=InMemorySaver())
    ground.resumed(1, 0, "interrupt")
    return ground.run(graph, EMPTY, THREAD), ground.run(graph, Command(resume="yes"), THREAD)


@program("pauses", ways=BOTH)
def two_questions_in_one_node(ground: Ground) -> Any:
    body = ground.node("ask", asks("one?", "two?"))
    graph = chain(ground, "ask", ask=body).compile(checkpointer=InMemorySaver())
    ground.resumed(1, 0, "interrupt")
    ground.resumed(2, 0, "interrupt")  # the second run came no further: the checkpoint is the first one's
    given: Any = (EMPTY, Command(resume="1"), Command(resume="2"))
    return [ground.run(graph, each, THREAD) for each in given]


@program("pauses", ways=BOTH)
def two_nodes_ask_at_once(ground: Ground) -> Any:
    graph: Any = StateGraph(Seen)
    for name in ("a", "b"):
        graph.add_node(name, ground.node(name, asks(name))).add_edge(START, name)
    graph.add_node("end", ground.node("end")).add_edge(["a", "b"], "end")
    whole = graph.compile(checkpointer=InMemorySaver())
    first = ground.run(whole, EMPTY, THREAD)
    answers = {each.id: f"to {each.value}" for each in whole.get_state(THREAD).interrupts}
    ground.resumed(1, 0, "interrupt")
    ground.linked("end", "a", "b")
    return sorted(each.value for each in first["__interrupt__"]), ground.run(whole, Command(resume=answers), THREAD)


@program("pauses", ways=BOTH)
def one_node_asks_while_its_sibling_goes_on(ground: Ground) -> Any:
    graph: Any = StateGraph(Seen).add_node("ask", ground.node("ask", asks("well?"))).add_edge(START, "ask")
    graph.add_node("work", ground.node("work")).add_edge(START, "work")
    graph.add_node("end", ground.node("end")).add_edge(["ask", "work"], "end")
    whole = graph.compile(checkpointer=InMemorySaver())
    ground.resumed(1, 0, "interrupt")
    return ground.run(whole, EMPTY, THREAD), ground.run(whole, Command(resume="yes"), THREAD)


@program("pauses", ways=BOTH)
def a_stop_before_a_node(ground: Ground) -> Any:
    graph = chain(ground, "a", "b").compile(checkpointer=InMemorySaver(), interrupt_before=["b"])
    ground.resumed(1, 0, "interrupt")
    return ground.run(graph, EMPTY, THREAD), ground.run(graph, None, THREAD)


@program("pauses", ways=BOTH)
def a_stop_after_a_node(ground: Ground) -> Any:
    graph = chain(ground, "a", "b").compile(checkpointer=InMemorySaver(), interrupt_after=["a"])
    ground.resumed(1, 0, "interrupt")
    return ground.items(graph, EMPTY, THREAD), ground.items(graph, None, THREAD)


@program("pauses", ways=BOTH)
def a_stop_asked_for_by_the_caller(ground: Ground) -> Any:
    graph = chain(ground, "a", "b").compile(checkpointer=InMemorySaver())
    ground.resumed(1, 0, "interrupt")
    return ground.run(graph, EMPTY, THREAD, interrupt_before=["b"]), ground.run(graph, None, THREAD)


@program("pauses", ways=BOTH)
def a_question_in_a_graph_inside(ground: Ground) -> Any:
    inner = chain(ground, "x", "ask", "y", ask=ground.node("ask", asks("well?"))).compile(name="inner")
    outer = chain(ground, "a", "sub", "b", sub=inner).compile(name="outer", checkpointer=InMemorySaver())
    ground.resumed(1, 0, "interrupt")
    return ground.run(outer, EMPTY, THREAD), ground.run(outer, Command(resume="yes"), THREAD)


@program("pauses", ways=BOTH)
def a_question_in_a_graph_called_in_a_node(ground: Ground) -> Any:
    inner = chain(ground, "ask", ask=ground.node("ask", asks("well?"))).compile(name="inner")

    def then(state: Any, config: RunnableConfig) -> Any:
        with ground.probe("call", config):
            return {"seen": inner.invoke(EMPTY, config)["seen"]}

    async def athen(state: Any, config: RunnableConfig) -> Any:
        with ground.probe("call", config):
            return {"seen": (await inner.ainvoke(EMPTY, config))["seen"]}

    body = then if ground.way == "sync" else athen
    outer = chain(ground, "call", call=body).compile(name="outer", checkpointer=InMemorySaver())
    ground.resumed(1, 0, "interrupt")
    return ground.run(outer, EMPTY, THREAD), ground.run(outer, Command(resume="yes"), THREAD)


@program("pauses", ways=BOTH)
def a_tool_that_asks_a_person(ground: Ground) -> Any:
    tool = a_tool(ground, "ask", lambda text: str(interrupt(text)))
    answers = [calls(("ask", {"text": "may I?"})), AIMessage("done")]
    agent = create_agent(Awaited(answers=answers, ground=ground), [tool], checkpointer=InMemorySaver(), name="asks")
    ground.resumed(1, 0, "interrupt")
    return ground.run(agent, ASK, THREAD), ground.run(agent, Command(resume="yes"), THREAD)


@program("pauses", ways=BOTH)
def a_question_streamed(ground: Ground) -> Any:
    body = ground.node("ask", asks("well?"))
    graph = chain(ground, "ask", "b", ask=body).compile(checkpointer=InMemorySaver())
    ground.resumed(1, 0, "interrupt")
    first = ground.items(graph, EMPTY, THREAD, stream_mode=["updates", "values"])
    return first, ground.items(graph, Command(resume="yes"), THREAD, stream_mode=["updates", "values"])


@program("pauses", ways=BOTH)
def an_answer_that_also_changes_the_state(ground: Ground) -> Any:
    graph = chain(ground, "ask", "b", ask=ground.node("ask", asks("well?"))).compile(checkpointer=InMemorySaver())
    ground.resumed(1, 0, "interrupt")
    first = ground.run(graph, EMPTY, THREAD)
    return first, ground.run(graph, Command(resume="yes", update={"seen": ["edited"]}), THREAD)


@program("pauses", ways=BOTH)
def a_question_asked_again_until_the_answer_will_do(ground: Ground) -> Any:
    def then(state: Any) -> Any:
        said = interrupt("a number?")
        while not str(said).isdigit():
            said = interrupt(f"{said} is none")
        return {"seen": [said]}

    graph = chain(ground, "ask", ask=ground.node("ask", then)).compile(checkpointer=InMemorySaver())
    ground.resumed(2, 0, "interrupt")
    given: Any = (EMPTY, Command(resume="x"), Command(resume="7"))
    return [ground.run(graph, each, THREAD) for each in given]


@program("pauses", ways=BOTH)
def a_conversation_that_goes_on_after_an_answer(ground: Ground) -> Any:
    """Interrupted, answered, and then a turn of its own on the same thread."""
    graph = chain(ground, "ask", ask=ground.node("ask", asks("well?"))).compile(checkpointer=InMemorySaver())
    ground.resumed(1, 0, "interrupt")
    ground.resumed(2, 1, "none")
    given: Any = (EMPTY, Command(resume="yes"), EMPTY)
    return [ground.run(graph, each, THREAD) for each in given]
