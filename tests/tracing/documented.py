"""The patterns that LangGraph's documentation teaches, each as a small program with a scripted model; results only."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypedDict

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, SystemMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_store
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, Send, interrupt

from sostenuto.tests.tracing.programs.ground import Ground
from sostenuto.tests.tracing.programs.parts import Awaited, Words, calls

Example = Callable[[], Any]
EXAMPLES: list[Example] = []
THREAD: Any = {"configurable": {"thread_id": "one"}}


def example(body: Example) -> Example:
    EXAMPLES.append(body)
    return body


def says(*answers: str | AIMessage) -> Awaited:
    """A model that gives these answers in turn."""
    return Awaited(
        answers=[AIMessage(each) if isinstance(each, str) else each for each in answers], ground=Ground("sync")
    )


@tool
def multiply(a: int, b: int) -> int:
    """The product of two numbers."""
    return a * b


@example
def react_agent() -> Any:
    """Reason, act, observe, until no tool is called any more."""
    model = says(calls(("multiply", {"a": 6, "b": 7})), calls(("multiply", {"a": 42, "b": 2})), "84")

    def reason(state: MessagesState) -> Any:
        return {"messages": [model.invoke([SystemMessage("be exact"), *state["messages"]])]}

    graph: Any = StateGraph(MessagesState).add_node("reason", reason).add_node("tools", ToolNode([multiply]))
    graph.add_edge(START, "reason").add_conditional_edges("reason", tools_condition).add_edge("tools", "reason")
    return graph.compile().invoke({"messages": [("user", "6 times 7, twice?")]})


@example
def routing() -> Any:
    """One call decides which of three writers answers."""

    class Letter(TypedDict, total=False):
        topic: str
        kind: str
        text: str

    chooser, writer = says("poem", "joke"), says("roses", "a horse walks in")

    def choose(state: Letter) -> Any:
        return {"kind": chooser.invoke(state["topic"]).content}

    def write(state: Letter) -> Any:
        return {"text": f"{state['kind']}: {writer.invoke(state['topic']).content}"}

    graph: Any = StateGraph(Letter).add_node("choose", choose).add_edge(START, "choose")
    for kind in ("poem", "joke", "story"):
        graph.add_node(kind, write).add_edge(kind, END)
    graph.add_conditional_edges("choose", lambda state: state["kind"], ["poem", "joke", "story"])
    compiled = graph.compile()
    return compiled.invoke({"topic": "spring"}), asyncio.run(compiled.ainvoke({"topic": "horses"}))


@example
def map_and_reduce() -> Any:
    """As many workers as there are subjects; their results are put together in order."""

    class Overall(TypedDict, total=False):
        subjects: list[str]
        jokes: Annotated[list[str], operator.add]
        best: str

    def joke(state: Any) -> Any:
        return {"jokes": [f"why did the {state['subject']} ..."]}

    graph: Any = StateGraph(Overall).add_node("plan", lambda state: {"subjects": ["lion", "bee", "eel"]})
    graph.add_node("joke", joke).add_node("best", lambda state: {"best": max(state["jokes"], key=len)})
    graph.add_edge(START, "plan").add_edge("joke", "best")
    graph.add_conditional_edges(
        "plan", lambda state: [Send("joke", {"subject": s}) for s in state["subjects"]], ["joke"]
    )
    return graph.compile().invoke({})


@example
def orchestrator_and_workers() -> Any:
    """A report of sections, each written by a worker that the orchestrator sends."""

    class Report(TypedDict, total=False):
        sections: list[str]
        done: Annotated[list[tuple[str, str]], operator.add]
        report: str

    model = says("text of a section")

    def write(state: Any) -> Any:
        return {"done": [(state["section"], str(model.invoke(state["section"]).content))]}

    def assign(state: Report) -> Any:
        sends = [Send("write", {"section": each}) for each in state["sections"]]
        return Command(update={}, goto=sends)

    graph: Any = StateGraph(Report).add_node("plan", lambda state: {"sections": ["why", "how", "what"]})
    graph.add_node("assign", assign, destinations=("write",)).add_node("write", write)
    graph.add_node("join", lambda state: {"report": "\n".join(f"# {a}\n{b}" for a, b in state["done"])})
    graph.add_edge(START, "plan").add_edge("plan", "assign").add_edge("write", "join")
    updates = list(graph.compile().stream({}, stream_mode="updates"))
    return graph.compile().invoke({}), sorted(map(str, updates))  # workers are done in any order


@example
def evaluator_and_optimizer() -> Any:
    """Written anew until the judge is content."""

    class Draft(TypedDict, total=False):
        text: str
        verdict: str
        rounds: int

    writer, judge = says("short", "longer", "long enough"), says("no", "no", "yes")

    def write(state: Draft) -> Any:
        return {"text": writer.invoke("write").content, "rounds": state.get("rounds", 0) + 1}

    async def look(state: Draft) -> Any:
        return {"verdict": (await judge.ainvoke(state["text"])).content}

    graph: Any = StateGraph(Draft).add_node("write", write).add_node("look", look)
    graph.add_edge(START, "write").add_edge("write", "look")
    graph.add_conditional_edges("look", lambda state: END if state["verdict"] == "yes" else "write")
    return asyncio.run(graph.compile().ainvoke({}))


@example
def a_person_approves_or_edits() -> Any:
    """A call of a tool waits for a person, who lets it pass, changes it, or turns it down."""

    class Plan(TypedDict, total=False):
        order: str
        status: str

    def review(state: Plan) -> Command[Literal["buy", "stop"]]:
        said = interrupt({"question": "buy this?", "order": state["order"]})
        if said["type"] == "edit":
            return Command(goto="buy", update={"order": said["order"]})
        return Command(goto="buy" if said["type"] == "approve" else "stop")

    graph: Any = StateGraph(Plan).add_node("review", review).add_edge(START, "review")
    graph.add_node("buy", lambda state: {"status": f"bought {state['order']}"})
    graph.add_node("stop", lambda state: {"status": "stopped"})
    compiled = graph.compile(checkpointer=InMemorySaver())
    found = []
    for number, answer in enumerate(({"type": "approve"}, {"type": "edit", "order": "tea"}, {"type": "reject"})):
        config: Any = {"configurable": {"thread_id": str(number)}}
        found.append(compiled.invoke({"order": "coffee"}, config))
        found.append(compiled.invoke(Command(resume=answer), config))
        found.append(compiled.get_state(config))
    return found


@example
def a_supervisor_of_agents() -> Any:
    """Two agents work for a supervisor, which hands the conversation to the one it chooses."""
    numbers = create_agent(says(calls(("multiply", {"a": 2, "b": 3})), "six"), [multiply], name="numbers")
    words = create_agent(says("a rose is a rose"), [], name="words")
    chief = says("numbers", "words", "done")

    def choose(state: MessagesState) -> Command[Literal["numbers", "words", "__end__"]]:
        said = str(chief.invoke(state["messages"]).content)
        return Command(goto=END if said == "done" else said)  # type: ignore[arg-type]

    graph: Any = StateGraph(MessagesState).add_node("choose", choose).add_edge(START, "choose")
    for agent in (numbers, words):
        graph.add_node(agent.name, agent).add_edge(agent.name, "choose")
    return graph.compile(name="office").invoke({"messages": [("user", "work")]})


@example
def what_a_store_remembers_across_threads() -> Any:
    """Facts of a user are kept outside of any conversation."""

    def remember(state: MessagesState) -> Any:
        store = get_store()
        if "my name is" in str(state["messages"][-1].content):
            store.put(("user",), "name", {"is": str(state["messages"][-1].content).split()[-1]})
            return {"messages": [("ai", "noted")]}
        known = store.get(("user",), "name")
        return {"messages": [("ai", f"you are {known.value['is'] if known else 'unknown'}")]}

    graph: Any = StateGraph(MessagesState).add_node("remember", remember).add_edge(START, "remember")
    compiled = graph.compile(checkpointer=InMemorySaver(), store=InMemoryStore())
    found = []
    for thread, text in (("a", "who am I?"), ("a", "my name is Ada"), ("b", "who am I?")):
        found.append(compiled.invoke({"messages": [("user", text)]}, {"configurable": {"thread_id": thread}}))
    return found


@example
def time_travel() -> Any:
    """Back to an earlier state, another choice there, and both lines in the history."""

    class Tale(TypedDict, total=False):
        topic: str
        tale: str

    graph: Any = StateGraph(Tale).add_node("topic", lambda state: {"topic": "cats"}).add_edge(START, "topic")
    graph.add_node("tell", lambda state: {"tale": f"of {state['topic']}"}).add_edge("topic", "tell")
    compiled = graph.compile(checkpointer=InMemorySaver())
    first = compiled.invoke({}, THREAD)
    before = next(each for each in compiled.get_state_history(THREAD) if each.next == ("tell",))
    second = compiled.invoke(None, compiled.update_state(before.config, {"topic": "dogs"}))
    third = compiled.invoke(None, before.config)
    return first, second, third, list(compiled.get_state_history(THREAD))


@example
def a_graph_inside_that_shares_state() -> Any:
    """And one that does not, called with a state of its own; both streamed with what goes on inside."""

    class Outer(TypedDict, total=False):
        foo: str

    class Inner(TypedDict, total=False):
        foo: str
        bar: str

    class Apart(TypedDict, total=False):
        baz: str

    shared: Any = StateGraph(Inner).add_node("one", lambda state: {"bar": "bar"}).add_edge(START, "one")
    shared.add_node("two", lambda state: {"foo": state["foo"] + state["bar"]}).add_edge("one", "two")
    apart: Any = StateGraph(Apart).add_node("x", lambda state: {"baz": state["baz"] + "!"}).add_edge(START, "x")
    own = apart.compile()
    graph: Any = StateGraph(Outer).add_node("begin", lambda state: {"foo": "hi " + state["foo"]})
    graph.add_node("shared", shared.compile()).add_node(
        "call", lambda state: {"foo": own.invoke({"baz": state["foo"]})["baz"]}
    )
    graph.add_edge(START, "begin").add_edge("begin", "shared").add_edge("shared", "call")
    return [item[-1] for item in graph.compile().stream({"foo": "you"}, subgraphs=True, stream_mode="updates")]


@example
def a_workflow_of_the_functional_api() -> Any:
    """An essay is written by a task and approved by a person; the task is not run again after the pause."""
    written: list[int] = []

    @task
    def essay(topic: str) -> str:
        written.append(1)
        return f"on {topic}"

    @entrypoint(checkpointer=InMemorySaver())
    def workflow(topic: str) -> Any:
        text = essay(topic).result()
        approved = interrupt({"essay": text, "action": "approve it?"})
        return {"essay": text, "approved": approved}

    first = list(workflow.stream("seals", THREAD))
    return first, list(workflow.stream(Command(resume=True), THREAD)), written


@example
def tokens_as_they_come() -> Any:
    """The words of a model inside a node, with the node that said them, and notes of the node's own."""
    model = Words(answers=[AIMessage("seven little words come one by one")], ground=Ground("async"))

    async def tell(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph: Any = StateGraph(MessagesState).add_node("tell", tell).add_edge(START, "tell")

    async def read() -> Any:
        stream = graph.compile().astream({"messages": [("user", "go")]}, stream_mode=["messages", "values"])
        return [(mode, item[0].content if mode == "messages" else len(item["messages"])) async for mode, item in stream]

    return asyncio.run(read())
