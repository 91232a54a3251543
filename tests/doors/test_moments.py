"""A graph's checkpoints keep the contexts that belong to them: going back to one computes no token of the past."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import pytest
from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt

from sostenuto.runtime.ask import Ask
from sostenuto.runtime.doors.langgraph import BoundSaver, ChatSostenuto, wrap
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.errors import UnknownCheckpoint
from sostenuto.runtime.host import Host
from sostenuto.runtime.sampling import Sampling

from .conftest import idle, smaller
from .graphs import PERSON, WAYS, OpenWay, at, talk, turns, where


@pytest.fixture(scope="module")
def host(host: Host) -> Iterator[Host]:
    with smaller(host, 1536) as small:
        yield small


def crowd(host: Host) -> None:
    """Others come and fill all the room there is but for what is marked."""
    host.loop.ask()  # all that was told has been heard
    books, ask = host.loop.kernel.books, Ask((), sampling=Sampling(max_tokens=1), tenant=uuid4().hex)
    assert books.held > 0, "nothing is marked"
    before = books.ledger.evicted
    for number in range(books.available * books.page // 400 + 1):
        host.resume(ask, [(number * 7 + k * 13) % 1000 + 1 for k in range(400)]).wait()
    assert books.ledger.evicted > before


@WAYS
async def test_a_replay_from_an_older_checkpoint_computes_nothing_of_the_past(
    model: ChatSostenuto, host: Host, open_way: OpenWay
) -> None:
    async with open_way() as way:
        graph, config = talk(model, way.saver), where()
        whole = await way.invoke(graph, {"messages": [PERSON]}, config)
        first, second = turns(whole["messages"])
        history = await way.history(graph, config)
        before = next(state for state in history if state.next == ("second",))
        again = await way.invoke(graph, None, at(config, before))
        (_, replayed) = turns(again["messages"])
        assert again["messages"][-1].content == whole["messages"][-1].content
        assert replayed["prompt_tokens"] == second["prompt_tokens"]
        assert replayed["reused_tokens"] == second["prompt_tokens"] - 1, "all but the token whose logits are wanted"
        assert first["reused_tokens"] == 0
        await way.forget(graph, config["configurable"]["thread_id"])
        assert idle(host)


@WAYS
async def test_a_fork_by_update_state_keeps_what_both_have_in_common(
    model: ChatSostenuto, host: Host, open_way: OpenWay
) -> None:
    async with open_way() as way:
        graph, config = talk(model, way.saver), where()
        whole = await way.invoke(graph, {"messages": [PERSON]}, config)
        common = turns(whole["messages"])[0]
        history = await way.history(graph, config)
        before = next(state for state in history if state.next == ("second",))
        changed = HumanMessage("No: what did they drink?", id=before.values["messages"][-1].id)
        forked = await way.update(graph, at(config, before), {"messages": [changed]})
        there = {"configurable": {**config["configurable"], **forked["configurable"]}}
        after = await way.invoke(graph, None, there)
        facts = turns(after["messages"])[-1]
        assert "drink" in after["messages"][-2].content
        assert facts["reused_tokens"] >= common["prompt_tokens"] + common["said_tokens"] - 1
        assert facts["computed_tokens"] < facts["prompt_tokens"] - common["prompt_tokens"]
        await way.forget(graph, config["configurable"]["thread_id"])


@WAYS
async def test_an_interrupt_may_take_any_time_and_the_resume_computes_only_what_is_new(
    model: ChatSostenuto, host: Host, open_way: OpenWay
) -> None:
    def speak(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"], max_tokens=6)]}

    def person(state: MessagesState) -> Any:
        return {"messages": [HumanMessage(interrupt("go on?"))]}

    graph = StateGraph(MessagesState)
    graph.add_node("first", speak)
    graph.add_node("person", person)
    graph.add_node("second", speak)
    graph.add_edge(START, "first")
    graph.add_edge("first", "person")
    graph.add_edge("person", "second")
    async with open_way() as way:
        agent, config = wrap(graph.compile(checkpointer=way.saver)), where()
        await way.invoke(agent, {"messages": [PERSON]}, config)
        crowd(host)
        told = await way.invoke(agent, Command(resume="Please do."), config)
        first, second = turns(told["messages"])
        assert second["reused_tokens"] >= first["prompt_tokens"] + first["said_tokens"] - 1
        await way.forget(agent, config["configurable"]["thread_id"])
        assert idle(host)


class Many(TypedDict):
    messages: list[AnyMessage]
    number: int
    answers: Annotated[list[AnyMessage], operator.add]


def fan(model: ChatSostenuto, saver: Any, leaf: Any) -> Any:
    def root(state: Many) -> Any:
        answer = model.invoke(state["messages"], max_tokens=4)
        return {"messages": [*state["messages"], answer], "answers": [answer]}

    def send(state: Many) -> list[Send]:
        return [Send("leaf", {"messages": state["messages"], "number": n}) for n in range(8)]

    graph = StateGraph(Many)
    graph.add_node("root", root)
    graph.add_node("leaf", leaf)
    graph.add_edge(START, "root")
    graph.add_conditional_edges("root", send, ["leaf"])
    return wrap(graph.compile(checkpointer=saver))


def one_of_many(model: ChatSostenuto) -> Any:
    def leaf(state: Many) -> Any:
        asked = HumanMessage(f"Say the number {state['number']}.")
        return {"answers": [model.invoke([*state["messages"], asked], max_tokens=4)]}

    return leaf


@WAYS
async def test_eight_branches_compute_the_common_past_not_once(
    model: ChatSostenuto, host: Host, open_way: OpenWay
) -> None:
    async with open_way() as way:
        graph, config = fan(model, way.saver, one_of_many(model)), where()
        told = await way.invoke(graph, {"messages": [PERSON], "number": 0, "answers": []}, config)
        root, *leaves = turns(told["answers"])
        assert len(leaves) == 8
        known = root["prompt_tokens"] + root["said_tokens"] - 1
        assert min(leaf["reused_tokens"] for leaf in leaves) >= known
        # Once more from the checkpoint before the fan-out: all that the branches compute is a last token each.
        before = next(state for state in await way.history(graph, config) if state.next == ("leaf",) * 8)
        crowd(host)
        again = await way.invoke(graph, None, at(config, before))
        replayed = turns(again["answers"])[-8:]
        assert [leaf["computed_tokens"] for leaf in replayed] == [1] * 8
        await way.forget(graph, config["configurable"]["thread_id"])
        assert idle(host)


@WAYS
async def test_subgraphs_share_their_callers_past(model: ChatSostenuto, host: Host, open_way: OpenWay) -> None:
    inner = StateGraph(Many)
    inner.add_node("leaf", one_of_many(model))
    inner.add_edge(START, "leaf")
    within = inner.compile()

    def leaf(state: Many) -> Any:
        return {"answers": within.invoke({**state, "answers": []})["answers"]}

    async with open_way() as way:
        if way.saver.__class__ is AsyncSqliteSaver:

            async def awaited(state: Many) -> Any:
                told = await within.ainvoke({**state, "answers": []})
                return {"answers": told["answers"]}

            graph = fan(model, way.saver, awaited)
        else:
            graph = fan(model, way.saver, leaf)
        config = where()
        told = await way.invoke(graph, {"messages": [PERSON], "number": 0, "answers": []}, config)
        root, *leaves = turns(told["answers"])
        assert len(leaves) == 8
        known = root["prompt_tokens"] + root["said_tokens"] - 1
        assert min(leaf["reused_tokens"] for leaf in leaves) >= known
        await way.forget(graph, config["configurable"]["thread_id"])
        assert idle(host)


@WAYS
async def test_a_checkpoint_that_is_not_there_is_refused_and_nothing_begins_anew(
    model: ChatSostenuto, host: Host, open_way: OpenWay
) -> None:
    async with open_way() as way:
        graph, config = talk(model, way.saver), where()
        await way.invoke(graph, {"messages": [PERSON]}, config)
        thread, nowhere = config["configurable"]["thread_id"], {"checkpoint_id": "1f0-nowhere", "checkpoint_ns": ""}
        before = len(await way.history(graph, config))
        for given in (None, {"messages": [PERSON]}):
            with pytest.raises(UnknownCheckpoint, match=f"'{thread}' has no checkpoint '1f0-nowhere'"):
                await way.invoke(graph, given, {"configurable": {**config["configurable"], **nowhere}})
        with pytest.raises(UnknownCheckpoint):
            await way.update(graph, {"configurable": {**config["configurable"], **nowhere}}, {"messages": []})
        assert len(await way.history(graph, config)) == before
        await way.forget(graph, thread)
        assert idle(host)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_whatever_the_durability_the_last_checkpoint_keeps_the_last_context(
    model: ChatSostenuto, host: Host, durability: Any
) -> None:
    graph, config = talk(model, InMemorySaver()), where()
    told = graph.invoke({"messages": [PERSON]}, config, durability=durability)
    crowd(host)
    more = graph.invoke({"messages": [HumanMessage("Thank you.")]}, config, durability=durability)
    last, following = turns(told["messages"])[-1], turns(more["messages"])[-2]
    assert following["reused_tokens"] >= last["prompt_tokens"] + last["said_tokens"] - 1
    graph.checkpointer.delete_thread(config["configurable"]["thread_id"])
    assert idle(host)


def test_pruning_keeps_the_latest_and_a_copy_keeps_what_the_original_loses(model: ChatSostenuto, host: Host) -> None:
    graph, config = talk(model, InMemorySaver()), where()
    thread = config["configurable"]["thread_id"]
    graph.invoke({"messages": [PERSON]}, config)
    marks = host.loop.kernel.books.ledger.leases
    host.loop.ask()  # all that was told has been heard
    assert len(marks) == 2
    graph.checkpointer.prune([thread])
    host.loop.ask()
    assert len(marks) == 2, "the latest stands behind both lines of conversation, in the same pages"
    graph.checkpointer.copy_thread(thread, f"{thread}-copy")
    graph.checkpointer.delete_thread(thread)
    host.loop.ask()
    assert len(marks) == 2
    graph.checkpointer.delete_thread(f"{thread}-copy")
    assert idle(host)


def test_marks_are_the_first_to_give_way(model: ChatSostenuto, host: Host) -> None:
    engine = host.engine
    assert isinstance(engine, TorchEngine)
    with Host(TorchEngine(engine.model, pool_tokens=320)) as small:
        graph, config = talk(ChatSostenuto(host=small), InMemorySaver()), where()
        told = graph.invoke({"messages": [PERSON]}, config)
        small.loop.ask()  # all that was told has been heard
        assert small.loop.kernel.books.held > 0
        other = ChatSostenuto(host=small, max_tokens=2).invoke("word " * 200, where())
        assert other.response_metadata["sostenuto"]["turn"]["prompt_tokens"] > 200
        assert small.loop.kernel.books.held == 0, "nobody waits for the sake of a mark"
        before = next(state for state in graph.get_state_history(config) if state.next == ("second",))
        again = graph.invoke(None, at(config, before))
        assert again["messages"][-1].content == told["messages"][-1].content, "losing one costs time, and no more"


def test_wrapped_twice_a_saver_is_bound_once_and_graphs_of_one_saver_have_their_threads_in_common(
    model: ChatSostenuto, host: Host
) -> None:
    saver = InMemorySaver()
    one, two = talk(model, saver), talk(model, saver)
    assert isinstance(wrap(one).checkpointer, BoundSaver)
    assert wrap(one) is one
    config = where()
    one.invoke({"messages": [PERSON]}, config)
    two.checkpointer.delete_thread(config["configurable"]["thread_id"])
    assert idle(host)


def test_without_a_checkpointer_nothing_is_marked(model: ChatSostenuto, host: Host) -> None:
    graph, config = talk(model, None), where()
    graph.invoke({"messages": [PERSON]}, config)
    assert idle(host), "a run that ends lets go at once"


def test_runs_of_one_thread_at_once_do_not_end_each_other(model: ChatSostenuto, host: Host) -> None:
    graph, config = talk(model, None), where()
    told = graph.batch([{"messages": [PERSON]} for _ in range(3)], [config] * 3)
    assert [len(one["messages"]) for one in told] == [4, 4, 4]
    assert idle(host)


class Slow(InMemorySaver):
    """Saves long after the next superstep has begun."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        if metadata["source"] == "loop" and metadata["step"] < 2:
            self.gate.wait(20)
        return super().put(config, checkpoint, metadata, new_versions)


def test_a_context_belongs_to_its_own_checkpoint_however_late_earlier_ones_are_saved(
    model: ChatSostenuto, host: Host
) -> None:
    saver = Slow()

    def before(state: MessagesState) -> Any:
        return {}

    def think(state: MessagesState) -> Any:
        answer = model.invoke(state["messages"], max_tokens=4)
        saver.gate.set()
        return {"messages": [answer]}

    graph = StateGraph(MessagesState)
    graph.add_node("before", before)
    graph.add_node("think", think)
    graph.add_edge(START, "before")
    graph.add_edge("before", "think")
    agent, config = wrap(graph.compile(checkpointer=saver)), where()
    asked: Any = {"messages": [PERSON]}
    agent.invoke(asked, config)
    thread = config["configurable"]["thread_id"]
    assert isinstance(agent.checkpointer, BoundSaver)
    agent.checkpointer.prune([thread])
    host.loop.ask()
    assert host.loop.kernel.books.held > 0, "the latest checkpoint is the one behind the answer"
    agent.checkpointer.delete_thread(thread)
    assert idle(host)
