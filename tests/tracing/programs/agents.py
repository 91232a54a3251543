"""Agents and their tools: cycles, parallel calls, agents inside agents, models in nodes."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from .ground import Ground
from .parts import ASK, Awaited, Model, Words, a_tool, calls, rounds
from .suite import BOTH, program


@program("agents", ways=BOTH)
def an_agent_goes_round_with_two_calls_each(ground: Ground) -> Any:
    agent = create_agent(Awaited(answers=rounds(), ground=ground), [a_tool(ground)], name="sums")
    return ground.run(agent, ASK)


@program("agents", ways=BOTH)
def an_agent_streams_words_and_updates(ground: Ground) -> Any:
    answers = [calls(("echo", {"text": "one"})), AIMessage("two words more")]
    agent = create_agent(Words(answers=answers, ground=ground), [a_tool(ground)], name="talks")
    return ground.items(agent, ASK, stream_mode=["messages", "updates"])


@program("agents", ways=BOTH)
def a_hand_made_cycle_of_model_and_tools(ground: Ground) -> Any:
    model = Awaited(answers=rounds(), ground=ground)

    def think(state: Any) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    async def athink(state: Any) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    body = ground.node("think", think if ground.way == "sync" else athink)
    graph: Any = StateGraph(MessagesState).add_node("think", body).add_node("tools", ToolNode([a_tool(ground)]))
    graph.add_edge(START, "think").add_conditional_edges("think", tools_condition).add_edge("tools", "think")
    return ground.run(graph.compile(), ASK)


@program("agents", ways=BOTH)
def two_calls_of_sync_tools_in_an_event_loop(ground: Ground) -> Any:
    """Tools without a coroutine go to threads."""
    ways = ground.way
    ground.way = "sync"
    tool = a_tool(ground)
    ground.way = ways
    return ground.run(create_agent(Model(answers=rounds(1), ground=ground), [tool], name="mixed"), ASK)


@program("agents", ways=BOTH)
def an_agent_is_a_tool_of_another(ground: Ground) -> Any:
    expert = create_agent(Awaited(answers=rounds(1), ground=ground), [a_tool(ground)], name="expert")

    def ask(text: str) -> str:
        return str(expert.invoke(ASK)["messages"][-1].content)

    async def aask(text: str) -> str:
        return str((await expert.ainvoke(ASK))["messages"][-1].content)

    asked = a_tool(ground, "ask", ask if ground.way == "sync" else aask)
    answers = [calls(("ask", {"text": "x"}), ("ask", {"text": "y"})), AIMessage("done")]
    return ground.run(create_agent(Awaited(answers=answers, ground=ground), [asked], name="chief"), ASK)


@program("agents", ways=BOTH)
def a_user_span_stands_between_node_and_model(ground: Ground) -> Any:
    model = Awaited(answers=[AIMessage("hi")], ground=ground)

    def think(state: Any) -> Any:
        with ground.probe("before"):
            pass
        with ground.probe("mine"):
            said = model.invoke(state["messages"])
        return {"messages": [said]}

    async def athink(state: Any) -> Any:
        with ground.probe("mine"):
            said = await model.ainvoke(state["messages"])
        with ground.probe("afterwards"):
            await asyncio.sleep(0)
        return {"messages": [said]}

    body = ground.node("think", think if ground.way == "sync" else athink)
    graph: Any = StateGraph(MessagesState).add_node("think", body).add_edge(START, "think")
    return ground.run(graph.compile(), ASK)


@program("agents", ways=BOTH)
def a_prompt_a_model_and_a_parser_in_one_node(ground: Ground) -> Any:
    """Runnables that are no nodes, tools or models have no span in the way."""

    def parse(said: Any, config: RunnableConfig) -> str:
        with ground.probe("parse"):
            return str(said.content).upper()

    prompt = ChatPromptTemplate.from_messages([("user", "{text}")])
    line = prompt | Awaited(answers=[AIMessage("hi")], ground=ground) | RunnableLambda(parse)

    def think(state: Any) -> Any:
        return {"messages": [("ai", line.invoke({"text": "x"}))]}

    async def athink(state: Any) -> Any:
        return {"messages": [("ai", await line.ainvoke({"text": "x"}))]}

    body = ground.node("think", think if ground.way == "sync" else athink)
    graph: Any = StateGraph(MessagesState).add_node("think", body).add_edge(START, "think")
    return ground.run(graph.compile(), ASK)


@program("agents")
def a_model_streamed_inside_a_node(ground: Ground) -> Any:
    model = Words(answers=[AIMessage("three words here")], ground=ground)

    def think(state: Any) -> Any:
        words = []
        for chunk in model.stream("x"):
            with ground.probe("between words"):
                words.append(str(chunk.content))
        return {"messages": [("ai", " ".join(words))]}

    graph: Any = StateGraph(MessagesState).add_node("think", ground.node("think", think)).add_edge(START, "think")
    return ground.run(graph.compile(), ASK)


@program("agents")
async def a_model_streamed_inside_an_async_node_is_given_up(ground: Ground) -> Any:
    model = Words(answers=[AIMessage("three words here")], ground=ground)

    async def think(state: Any) -> Any:
        chunks: Any = model.astream("x")
        first = await anext(chunks)
        await chunks.aclose()
        with ground.probe("after giving up"):
            return {"messages": [("ai", first.content)]}

    graph: Any = StateGraph(MessagesState).add_node("think", ground.node("think", think)).add_edge(START, "think")
    return await ground.arun(graph.compile(), ASK)


@program("agents", ways=BOTH)
def a_tool_that_fails_is_told_to_the_model(ground: Ground) -> Any:
    def fail(text: str) -> str:
        raise ValueError(f"no {text}")

    tool = a_tool(ground, "fail", fail)
    graph: Any = StateGraph(MessagesState)
    model = Model(answers=[calls(("fail", {"text": "x"})), AIMessage("sorry")], ground=ground)
    graph.add_node("think", ground.node("think", lambda state: {"messages": [model.invoke(state["messages"])]}))
    graph.add_node("tools", ToolNode([tool], handle_tool_errors=True))
    graph.add_edge(START, "think").add_conditional_edges("think", tools_condition).add_edge("tools", "think")
    return ground.run(graph.compile(), ASK)


@program("agents", ways=BOTH, raises="ZeroDivisionError")
def a_tool_that_fails_ends_the_run(ground: Ground) -> Any:
    def fail(text: str) -> str:
        raise ZeroDivisionError(text)

    tool = a_tool(ground, "fail", fail)
    model = Model(answers=[calls(("fail", {"text": "x"})), AIMessage("never")], ground=ground)
    return ground.run(create_agent(model, [tool], name="fails"), ASK)


@program("agents", ways=BOTH)
def middleware_before_and_after_the_model_and_round_tools(ground: Ground) -> Any:
    class Watch(AgentMiddleware[Any, Any]):
        def before_model(self, state: Any, runtime: Any) -> Any:
            return {"messages": [("user", "remember")]}

        def after_model(self, state: Any, runtime: Any) -> Any:
            return None

        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            with ground.probe("round a tool", request.runtime.config):
                return handler(request)

        async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
            with ground.probe("round a tool", request.runtime.config):
                return await handler(request)

    model = Awaited(answers=rounds(1), ground=ground)
    agent = create_agent(model, [a_tool(ground)], middleware=[Watch()], name="watched")
    return ground.run(agent, ASK)


@program("agents", ways=BOTH)
def one_model_after_the_other_in_one_node(ground: Ground) -> Any:
    """The second falls in when the first fails."""

    class Broken(Awaited):
        def _next(self) -> AIMessage:
            raise ConnectionError("away")

    model = Broken(answers=[], ground=ground).with_fallbacks([Awaited(answers=[AIMessage("here")], ground=ground)])

    def think(state: Any) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    async def athink(state: Any) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    body = ground.node("think", think if ground.way == "sync" else athink)
    graph: Any = StateGraph(MessagesState).add_node("think", body).add_edge(START, "think").add_edge("think", END)
    return ground.run(graph.compile(), ASK)


@program("agents", ways=BOTH)
def a_model_batched_in_a_node(ground: Ground) -> Any:
    """Calls side by side, in threads or in tasks, under one node."""
    model = Awaited(answers=[AIMessage("yes")], ground=ground)

    def think(state: Any) -> Any:
        return {"messages": model.batch(["a", "b", "c"])}

    async def athink(state: Any) -> Any:
        return {"messages": await model.abatch(["a", "b", "c"])}

    body = ground.node("think", think if ground.way == "sync" else athink)
    graph: Any = StateGraph(MessagesState).add_node("think", body).add_edge(START, "think")
    return ground.run(graph.compile(), ASK)
