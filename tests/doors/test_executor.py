"""The executor behind a graph: tools that hang, raise, answer too much or are put off, alone and beside one another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from sostenuto.runtime.doors.langgraph import ChatSostenuto, ToolGuard, tool_node, wrap
from sostenuto.runtime.execute.executor import Executor
from sostenuto.runtime.execute.key import call_key
from sostenuto.runtime.execute.policy import Policy
from sostenuto.tools.contracts import Contract

from .conftest import Say, idle, said

GO: Any = {"messages": [("user", "go")]}
READ, WRITE = Contract("read"), Contract("write")


def asked(*calls: tuple[str, dict[str, Any]]) -> Any:
    made = [{"name": name, "args": args, "id": f"c{n}", "type": "tool_call"} for n, (name, args) in enumerate(calls)]
    return {"messages": [AIMessage("", tool_calls=made)]}


def alone(*tools: BaseTool, saver: Any = None, **given: Any) -> Any:
    """A graph that is nothing but a tool node."""
    graph = StateGraph(MessagesState)
    graph.add_node("tools", tool_node(tools, **given))
    graph.add_edge(START, "tools")
    return graph.compile(checkpointer=saver)


def results(state: Any) -> list[ToolMessage]:
    return [message for message in state["messages"] if isinstance(message, ToolMessage)]


def sync(graph: Any, *given: Any) -> Any:
    return graph.invoke(*given)


def awaited(graph: Any, *given: Any) -> Any:
    return asyncio.run(graph.ainvoke(*given))


BOTH = pytest.mark.parametrize("run", [sync, awaited])


def book(done: list[str]) -> BaseTool:
    @tool("book")
    def write(n: int) -> str:
        """Books."""
        done.append(f"book {n}")
        return f"booked {n}"

    return write


@BOTH
def test_reads_of_a_turn_run_side_by_side_and_writes_in_the_models_order(run: Callable[..., Any]) -> None:
    done: list[str] = []
    meet = threading.Barrier(2, timeout=20)

    @tool
    def look(n: int) -> str:
        """Looks."""
        meet.wait()
        done.append("look")
        return "seen"

    executor = Executor(Policy({"look": READ, "book": WRITE}))
    graph = alone(look, book(done), executor=executor)
    calls = asked(("look", {"n": 1}), ("book", {"n": 2}), ("book", {"n": 3}), ("look", {"n": 4}), ("look", {"n": 5}))
    if run is sync:
        calls = asked(("look", {"n": 1}), ("look", {"n": 0}), ("book", {"n": 2}), ("book", {"n": 3}))
        assert [each.content for each in results(run(graph, calls))] == ["seen", "seen", "booked 2", "booked 3"]
        assert done == ["look", "look", "book 2", "book 3"]
    else:
        calls = asked(("book", {"n": 2}), ("book", {"n": 3}), ("look", {"n": 4}), ("look", {"n": 5}))
        assert [each.content for each in results(run(graph, calls))] == ["booked 2", "booked 3", "seen", "seen"]
        assert done == ["book 2", "book 3", "look", "look"]
    assert "0 running | <Slots 0 taken, 0 waiting> | <Turns 0>" in repr(executor)


@BOTH
def test_one_that_fails_or_is_rejected_loses_no_others_result(run: Callable[..., Any]) -> None:
    done: list[str] = []

    @tool
    def fail(n: int) -> str:
        """Fails."""
        raise LookupError("nobody knows")

    graph = alone(fail, book(done))
    calls = asked(("fail", {"n": 1}), ("book", {"n": "two"}), ("nobody", {}), ("book", {"n": 4}))
    found = results(run(graph, calls))
    assert [each.status for each in found] == ["error", "error", "error", "success"]
    assert (found[3].content, done) == ("booked 4", ["book 4"])


@BOTH
def test_in_an_agent_each_call_is_a_task_and_their_order_holds(
    model: ChatSostenuto, say: Say, run: Callable[..., Any]
) -> None:
    done: list[str] = []
    say(said("book", n=1) + "\n" + said("book", n=2) + "\n" + said("book", n=3), "Booked.")
    executor = Executor()
    agent = wrap(create_agent(model, [book(done)], middleware=[ToolGuard(executor=executor)]))
    assert [each.content for each in results(run(agent, GO))] == ["booked 1", "booked 2", "booked 3"]
    assert done == ["book 1", "book 2", "book 3"]
    assert "<Turns 0>" in repr(executor)


@BOTH
def test_a_result_of_fifty_megabytes_never_reaches_the_model(run: Callable[..., Any]) -> None:
    @tool
    def shout() -> str:
        """Shouts."""
        return "A" * 50_000_000

    (found,) = results(run(alone(shout), asked(("shout", {}))))
    assert (found.status, len(found.content) < 200) == ("error", True)
    assert "50000000 characters" in str(found.content)


@BOTH
def test_a_result_of_the_wrong_shape_never_reaches_the_model(run: Callable[..., Any]) -> None:
    @tool
    def count() -> str:
        """Counts."""
        return '{"n": "many"}'

    schema: Any = {"type": "object", "properties": {"n": {"type": "integer"}}}
    executor = Executor(Policy({"count": Contract("read", returns=schema)}))
    (found,) = results(run(alone(count, executor=executor), asked(("count", {}))))
    assert (found.status, "/n" in str(found.content)) == ("error", True)


def test_a_run_that_is_cancelled_in_a_write_cancels_the_tool_and_leaves_nothing() -> None:
    ended: list[str] = []
    begun = asyncio.Event()

    @tool
    async def write() -> str:
        """Writes."""
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return "never"

    executor = Executor()
    graph = alone(write, executor=executor)

    async def cancelled() -> None:
        task = asyncio.create_task(graph.ainvoke(asked(("write", {}))))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert ended == ["cancelled"]
    assert "0 running | <Slots 0 taken, 0 waiting>" in repr(executor)


@BOTH
def test_a_write_behind_one_that_asks_a_person_waits_for_the_answer(
    model: ChatSostenuto, say: Say, run: Callable[..., Any]
) -> None:
    done: list[str] = []

    @tool
    def pay(n: int) -> str:
        """Pays, if somebody says yes."""
        answer = interrupt("may I?")
        done.append(f"pay {n} {answer}")
        return "paid"

    say(said("pay", n=1) + "\n" + said("book", n=2), "Done.")
    agent = create_agent(model, [pay, book(done)], middleware=[ToolGuard()], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    paused = run(agent, GO, config)
    assert (len(paused["__interrupt__"]), done) == (1, [])
    ended = run(agent, Command(resume="yes"), config)
    assert done == ["pay 1 yes", "book 2"]
    assert ended["messages"][-1].content == "Done."


@BOTH
def test_a_node_that_runs_again_after_an_answer_does_not_run_again_what_is_over(run: Callable[..., Any]) -> None:
    done: list[str] = []

    @tool
    def pay(n: int) -> str:
        """Pays, if somebody says yes."""
        done.append(f"pay {n} {interrupt('may I?')}")
        return "paid"

    graph = alone(book(done), pay, saver=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    run(graph, asked(("book", {"n": 1}), ("pay", {"n": 2}), ("book", {"n": 3})), config)
    assert done == ["book 1"]
    ended = run(graph, Command(resume="yes"), config)
    assert done == ["book 1", "pay 2 yes", "book 3"]
    assert [each.content for each in results(ended)] == ["booked 1", "paid", "booked 3"]


@BOTH
def test_a_node_that_runs_again_elsewhere_gives_a_tool_the_same_key_for_the_same_call(run: Callable[..., Any]) -> None:
    keys: list[tuple[str, str]] = []
    saver = InMemorySaver()
    config = {"configurable": {"thread_id": "t"}}

    @tool
    def book(n: int) -> str:
        """Books."""
        keys.append((f"book {n}", call_key()))
        return "booked"

    @tool
    def pay(n: int) -> str:
        """Pays, if somebody says yes."""
        keys.append((f"pay {n}", call_key()))
        return str(interrupt("may I?"))

    calls = asked(("book", {"n": 1}), ("pay", {"n": 2}))
    run(alone(book, pay, saver=saver, executor=Executor()), calls, config)
    run(alone(book, pay, saver=saver, executor=Executor()), Command(resume="yes"), config)  # as another process would
    assert [name for name, _ in keys] == ["book 1", "pay 2"] * 2
    assert keys[:2] == keys[2:]
    assert len({key for _, key in keys} - {""}) == 2
    run(alone(book, pay, saver=saver, executor=Executor()), calls, {"configurable": {"thread_id": "u"}})
    assert keys[4][1] not in (keys[0][1], "")
    assert call_key() == "", "outside of a call there is none"


def test_a_write_that_was_cut_off_is_never_made_again() -> None:
    begun: list[int] = []
    inside = asyncio.Event()

    @tool
    async def write() -> str:
        """Writes."""
        begun.append(1)
        inside.set()
        await asyncio.Event().wait()
        return "never"

    graph = alone(write, saver=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}

    async def cancelled_and_again() -> Any:
        task = asyncio.create_task(graph.ainvoke(asked(("write", {})), config))
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await graph.ainvoke(None, config)

    (found,) = results(asyncio.run(cancelled_and_again()))
    assert (found.status, "not known" in str(found.content), begun) == ("error", True, [1])


def test_a_read_that_stands_behind_nothing_is_not_made_twice_for_an_equal_one(model: ChatSostenuto, say: Say) -> None:
    ran: list[int] = []
    second = threading.Event()
    executor = Executor(Policy({"look": READ}))

    @tool
    def look(n: int) -> str:
        """Looks."""
        ran.append(n)
        while repr(executor).startswith("<Executor 1 running") and not second.is_set():
            second.wait(0.001)
        second.wait(0.05)
        return "seen"

    found = results(alone(look, executor=executor).invoke(asked(("look", {"n": 1}), ("look", {"n": 1}))))
    assert [(each.content, each.tool_call_id) for each in found] == [("seen", "c0"), ("seen", "c1")]
    assert ran == [1]


def test_an_executor_and_a_timeout_are_two_answers_to_one_question() -> None:
    with pytest.raises(ValueError, match=r"Limits\(timeout=3\)"):
        ToolGuard(timeout=3, executor=Executor())
    with pytest.raises(ValueError, match="timeout"):
        tool_node([], timeout=-1)


def test_nothing_is_held_of_a_model_whose_tools_went_wrong(model: ChatSostenuto, say: Say) -> None:
    @tool
    def fail() -> str:
        """Fails."""
        raise OSError("gone")

    say(said("fail"), "Done.")
    agent = wrap(create_agent(model, [fail], middleware=[ToolGuard()]))
    assert agent.invoke(GO)["messages"][-1].content == "Done."
    assert idle(model.served_by)
