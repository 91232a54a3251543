"""What was said is in no span, unless somebody asks for it; then all of it, as far as its owners let it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import langgraph.types
import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.tools import ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.prebuilt import InjectedState
from langgraph.types import interrupt

from sostenuto.tracing import GraphTracer, ModelCall, Redact, ToolCall, instrument, model_span, tool_span
from sostenuto.tracing.content import LONGEST

SECRET = "xyzzy-1f0c"
ASK: Any = {"messages": [("system", f"be {SECRET}"), ("user", f"go {SECRET}")]}
BOTH: Any = {"openinference": True, "langfuse": True}


class State(TypedDict):
    said: str


def everything(spans: Any) -> str:
    """All that was recorded, as one text."""
    told: list[Any] = []
    for span in spans.all:
        told += [span.name, dict(span.attributes), span.status.description]
        told += [(event.name, dict(event.attributes)) for event in span.events]
        told += [dict(link.attributes) for link in span.links]
    return repr(told)


@pytest.fixture
def program(models: Any) -> Callable[[], None]:
    """A secret goes through messages, arguments, results, pauses, streams and exceptions."""

    @tool
    def look(what: str) -> str:
        """Looks."""
        return f"found {what}"

    @tool
    def sulk(what: str) -> str:
        """Refuses."""
        raise ToolException(f"not {what}")

    @tool
    def ask(what: str) -> str:
        """Asks a person."""
        return str(interrupt(f"may I {what}?"))

    sulk.handle_tool_error = True
    calls = [{"name": each, "args": {"what": SECRET}, "id": each} for each in ("look", "sulk")]

    def fall(state: State) -> State:
        try:
            raise ValueError(state["said"])
        except ValueError as error:
            raise LookupError(f"lost {SECRET}") from error

    def go() -> None:
        answers = [AIMessage(SECRET, tool_calls=calls), AIMessage(f"done {SECRET}")]
        agent = create_agent(models["plain"](answers=answers), [look, sulk], name="a")
        agent.invoke(ASK)
        asyncio.run(agent.ainvoke(ASK))
        list(models["streaming"](answers=answers[1:]).stream(f"stream {SECRET}"))
        polite = [AIMessage("", tool_calls=[{"name": "ask", "args": {"what": SECRET}, "id": "1"}])]
        saver: Any = {"checkpointer": InMemorySaver()}
        create_agent(models["plain"](answers=polite), [ask], **saver).invoke(ASK, {"configurable": {"thread_id": "t"}})
        graph = StateGraph(State).add_node("fall", fall).add_edge(START, "fall").compile()
        with pytest.raises(LookupError):
            graph.invoke({"said": SECRET})

    return go


@pytest.mark.parametrize("dialects", [{}, BOTH])
def test_without_the_option_no_content_is_anywhere(spans: Any, program: Callable[[], None], dialects: Any) -> None:
    undo = instrument(spans.provider, **dialects)
    try:
        program()
    finally:
        undo()
    assert len(spans.all) > 20
    assert spans.failed()
    assert SECRET not in everything(spans)


def test_with_it_the_same_program_tells_all(spans: Any, program: Callable[[], None]) -> None:
    undo = instrument(spans.provider, content=True, **BOTH)
    try:
        program()
    finally:
        undo()
    quoting = {span.name for span in spans.all if SECRET in repr((dict(span.attributes), span.events))}
    silent = {span.name for span in spans.all} - quoting
    assert {name.split()[0] for name in silent} == {"superstep"}


@pytest.mark.parametrize("dialects", [{}, BOTH])
def test_what_is_not_recorded_is_not_made(spans: Any, models: Any, dialects: Any) -> None:
    class Shy:
        def model_dump(self) -> Any:
            raise AssertionError("nobody asked")

        __str__ = model_dump

    @tool
    def make(state: Annotated[dict[str, Any], InjectedState]) -> Any:
        """Makes."""
        return Shy()

    def wrong(name: str, value: object) -> object:
        raise AssertionError("nothing is to be redacted")

    undo = instrument(spans.provider, redact=wrong, **dialects)
    try:
        assert isinstance(make.invoke({"state": {"shy": Shy()}}), Shy)
        with model_span(ModelCall("m")) as span:
            span.content(Shy().model_dump)
    finally:
        undo()
    assert spans.tree() == ["execute_tool make", "chat m"]


def test_messages_and_calls_stand_as_the_conventions_want_them(spans: Any, models: Any) -> None:
    @tool
    def add(a: int, state: Annotated[dict[str, Any], InjectedState]) -> int:
        """Adds."""
        return a + len(state["messages"])

    call = {"name": "add", "args": {"a": 1}, "id": "add-1"}
    block: list[Any] = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "http://x/y.png"}}]
    answers = [
        AIMessage("let me", tool_calls=[call], response_metadata={"finish_reason": "tool_calls"}),
        AIMessage([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "4"}]),
    ]
    undo = instrument(spans.provider, content=True)
    try:
        agent: Any = create_agent(models["plain"](answers=answers), [add], name="a")
        agent.invoke({"messages": [SystemMessage("be good"), HumanMessage(block)]})
        bound: Any = {"function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}
        models["plain"](answers=answers).invoke("x", tools=[{"type": "function", **bound}, add])
    finally:
        undo()
    first, second, third = (each.attributes for each in spans.named("chat Scripted"))
    assert json.loads(first["gen_ai.system_instructions"]) == [{"type": "text", "content": "be good"}]
    asked = {"role": "user", "parts": [{"type": "text", "content": "see"}, block[1]]}
    said = [
        {"type": "text", "content": "let me"},
        {"type": "tool_call", "id": "add-1", "name": "add", "arguments": {"a": 1}},
    ]
    result = {"role": "tool", "parts": [{"type": "tool_call_response", "id": "add-1", "response": "4"}]}
    assert json.loads(first["gen_ai.input.messages"]) == [asked]
    assert json.loads(first["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": said, "finish_reason": "tool_calls"}
    ]
    assert json.loads(second["gen_ai.input.messages"]) == [asked, {"role": "assistant", "parts": said}, result]
    assert json.loads(second["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [{"type": "reasoning", "content": "hm"}, {"type": "text", "content": "4"}],
            "finish_reason": "stop",
        }
    ]
    one, other = json.loads(third["gen_ai.tool.definitions"])
    assert one == {"type": "function", **bound["function"]}
    assert (other["name"], other["description"]) == ("add", "Adds.")
    run = spans.one("execute_tool add").attributes
    assert json.loads(run["gen_ai.tool.call.arguments"]) == {"a": 1}  # and not the state that was put in
    assert json.loads(run["gen_ai.tool.call.result"]) == "4"


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("kind", ["streaming", "plain"])
def test_a_streamed_answer_is_recorded_as_a_whole(spans: Any, models: Any, way: str, kind: str) -> None:
    model = models[kind](answers=[AIMessage("one two", response_metadata={"finish_reason": "stop"})])

    async def consume() -> None:
        async for _ in model.astream("x"):
            pass

    undo = instrument(spans.provider, content=True)
    try:
        asyncio.run(consume()) if way == "async" else list(model.stream("x"))
    finally:
        undo()
    (span,) = spans.all
    text = "onetwo" if kind == "streaming" else "one two"
    assert json.loads(span.attributes["gen_ai.input.messages"])[0]["parts"] == [{"type": "text", "content": "x"}]
    assert json.loads(span.attributes["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": text}], "finish_reason": "stop"}
    ]


def test_redact_sees_all_content_first_and_decides(spans: Any, program: Callable[[], None]) -> None:
    seen: set[str] = set()

    def redact(name: str, value: object) -> object | None:
        seen.add(name)
        return None if name.startswith("exception") else json.loads(json.dumps(value, default=str).replace(SECRET, "*"))

    chosen: Redact = redact
    undo = instrument(spans.provider, content=True, redact=chosen, **BOTH)
    try:
        program()
    finally:
        undo()
    assert SECRET not in everything(spans)
    assert seen == {
        "gen_ai.system_instructions",
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.tool.call.arguments",
        "gen_ai.tool.call.result",
        "input.value",
        "output.value",
        "exception.message",
        "exception.stacktrace",
    }
    assert json.loads(spans.named("execute_tool look")[0].attributes["gen_ai.tool.call.result"]) == "found *"


def test_a_redact_that_raises_never_reaches_the_program(spans: Any, models: Any, caplog: Any) -> None:
    def redact(name: str, value: object) -> object:
        raise RuntimeError(str(value))

    undo = instrument(spans.provider, content=True, redact=redact, **BOTH)
    try:
        agent = create_agent(models["plain"](answers=[AIMessage(f"hi {SECRET}")]), [], name="a")
        assert agent.invoke(ASK)["messages"][-1].content == f"hi {SECRET}"
    finally:
        undo()
    assert SECRET not in everything(spans)
    assert "gen_ai.input.messages" not in spans.one("chat Scripted").attributes
    assert "RuntimeError" in caplog.text
    assert SECRET not in caplog.text


def test_content_that_cannot_be_written_is_left_out(spans: Any) -> None:
    def make() -> Any:
        raise RuntimeError(SECRET)

    undo = instrument(spans.provider, content=True)
    try:
        with model_span(ModelCall("m")) as span:
            span.content(make)
            span.content(lambda: {"gen_ai.output.messages": [float("nan"), b"abc", {1: {2}}, "\ud800"]})
    finally:
        undo()
    told = spans.one("chat m").attributes
    assert json.loads(told["gen_ai.output.messages"]) == ["nan", "[3 bytes]", {"1": [2]}, "?"]
    assert SECRET not in everything(spans)


@pytest.mark.parametrize(
    "value", ["x" * 3 * LONGEST, ["y" * 5000] * 40, [{"parts": [str(each)]} for each in range(100_000)], {"deep": None}]
)
def test_content_is_cut_to_a_size_and_stays_json(spans: Any, value: Any) -> None:
    if isinstance(value, dict):
        value["deep"] = value  # it never ends
    undo = instrument(spans.provider, content=True)
    try:
        with tool_span(ToolCall("t")) as span:
            span.content(lambda: {"gen_ai.tool.call.result": value})
    finally:
        undo()
    text = spans.one("execute_tool t").attributes["gen_ai.tool.call.result"]
    assert 0 < len(text) <= LONGEST
    json.loads(text)


def test_graphs_and_nodes_tell_what_they_were_given_and_gave_where_a_name_exists(spans: Any) -> None:
    def shout(state: State) -> State:
        return {"said": state["said"].upper()}

    graph = StateGraph(State).add_node("shout", shout).add_edge(START, "shout").add_edge("shout", END).compile()
    choices: list[Any] = [{"openinference": True}, {"langfuse": True}, {}]
    for dialects in choices:
        undo = instrument(spans.provider, content=True, **dialects)
        try:
            graph.invoke({"said": "a"})
            asyncio.run(graph.ainvoke({"said": "a"}))
            list(graph.stream({"said": "a"}, stream_mode="values"))
        finally:
            undo()
    kinds = ("invoke_workflow LangGraph", "run_step shout")
    found = [dict(each.attributes) for name in kinds for each in spans.named(name)]
    phoenix, langfuse, neither = found[0:3] + found[9:12], found[3:6] + found[12:15], found[6:9] + found[15:]
    for told in phoenix:
        assert (json.loads(told["input.value"]), json.loads(told["output.value"])) == ({"said": "a"}, {"said": "A"})
        assert told["input.mime_type"] == told["output.mime_type"] == "application/json"
    for told in langfuse:
        assert json.loads(told["langfuse.observation.input"]) == {"said": "a"}
        assert json.loads(told["langfuse.observation.output"]) == {"said": "A"}
    for told in neither:
        assert not [key for key in told if "input" in key or "output" in key]


@pytest.mark.skipif(not hasattr(langgraph.types, "TracePolicy"), reason="this LangGraph has no TracePolicy")
@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_nodes_policy_holds_for_all_that_happens_in_it(spans: Any, models: Any, way: str) -> None:
    from langgraph.types import TracePolicy

    def count(value: Any) -> Any:
        return {"characters": len(value["said"])}

    model = models["plain"](answers=[AIMessage(SECRET)])

    @tool
    def look(what: str) -> str:
        """Looks."""
        return what

    def work(state: State) -> State:
        look.invoke({"what": state["said"]})
        return {"said": str(model.invoke(state["said"]).content)}

    def fall(state: State) -> State:
        raise ValueError(state["said"])

    graph: Any = StateGraph(State)
    graph.add_node("work", work, trace_policy=TracePolicy(process_inputs=count, process_outputs=count))
    graph.add_node("open", lambda state: {"said": state["said"]})
    graph.add_node("fall", fall, trace_policy=TracePolicy(process_outputs=langgraph.types.omit_payload))
    graph.add_edge(START, "work").add_edge("work", "open").add_edge("open", "fall")
    compiled = graph.compile()
    undo = instrument(spans.provider, content=True, **BOTH)
    try:
        with pytest.raises(ValueError, match="xyzzy"):
            compiled.invoke({"said": SECRET}) if way == "sync" else asyncio.run(compiled.ainvoke({"said": SECRET}))
    finally:
        undo()
    node = spans.one("run_step work").attributes
    assert json.loads(node["input.value"]) == json.loads(node["output.value"]) == {"characters": len(SECRET)}
    quoting = {each.name for each in spans.all if SECRET in repr((dict(each.attributes), each.events))}
    # The run is nobody's node, what `open` was given is its own to tell, and `fall` hides only what it gives.
    assert quoting == {"invoke_workflow LangGraph", "run_step open", "run_step fall"}
    for name in ("invoke_workflow LangGraph", "run_step fall"):
        (event,) = spans.one(name).events
        assert SECRET not in repr(event.attributes)


def test_a_handler_alone_records_what_tools_are_given_and_give(spans: Any, models: Any) -> None:
    @tool
    def add(a: int) -> int:
        """Adds."""
        return a + 1

    call = {"name": "add", "args": {"a": 1}, "id": "1"}
    answers = [AIMessage("", tool_calls=[call]), AIMessage("done")]
    agent = create_agent(models["plain"](answers=answers), [add], name="a")
    agent.invoke(ASK, {"callbacks": [GraphTracer(spans.provider, content=True)]})
    agent.invoke(ASK, {"callbacks": [GraphTracer(spans.provider)]})
    first, second = (each.attributes for each in spans.named("execute_tool add"))
    assert json.loads(first["gen_ai.tool.call.arguments"]) == {"a": 1}
    assert json.loads(first["gen_ai.tool.call.result"]) == "2"
    assert not [key for key in second if key.startswith("gen_ai.tool.call.") and key != "gen_ai.tool.call.id"]
