"""The functional API: entrypoints, tasks, futures, and what they remember."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.types import Command, RetryPolicy, interrupt

from .ground import Ground
from .parts import EMPTY, THREAD, chain
from .suite import BOTH, program


def part(ground: Ground, name: str = "part", **more: Any) -> Any:
    """A task in the program's way, with a probe `part n` inside."""

    def body(number: int, config: RunnableConfig) -> int:
        with ground.probe(f"{name} {number}", config):
            return number + 1

    async def abody(number: int, config: RunnableConfig) -> int:
        with ground.probe(f"{name} {number}", config):
            await asyncio.sleep(0)
            return number + 1

    chosen = body if ground.way == "sync" else abody
    chosen.__name__ = name
    return task(**more)(chosen)


def made(body: Any, **more: Any) -> Any:
    """A task of this function."""
    return task(**more)(body)


def whole(ground: Ground, body: Any, abody: Any, **more: Any) -> Any:
    """An entrypoint in the program's way."""
    return entrypoint(**more)(body if ground.way == "sync" else abody)


@program("functional", ways=BOTH)
def tasks_side_by_side(ground: Ground) -> Any:
    step = part(ground)

    def main(number: int, config: RunnableConfig) -> int:
        with ground.probe("main", config):
            return sum(each.result() for each in [step(number), step(number + 1), step(number + 2)])

    async def amain(number: int, config: RunnableConfig) -> int:
        with ground.probe("main", config):
            return sum(await asyncio.gather(step(number), step(number + 1), step(number + 2)))

    return ground.run(whole(ground, main, amain), 1)


@program("functional", ways=BOTH)
def tasks_one_after_the_other(ground: Ground) -> Any:
    one, two = part(ground, "one"), part(ground, "two")

    def main(number: int) -> int:
        return int(two(one(number).result()).result())

    async def amain(number: int) -> int:
        return int(await two(await one(number)))

    return ground.run(whole(ground, main, amain), 1)


@program("functional", ways=BOTH)
def a_task_that_calls_tasks(ground: Ground) -> Any:
    deep = part(ground, "deep")

    def body(number: int, config: RunnableConfig) -> int:
        with ground.probe(f"middle {number}", config):
            return sum(each.result() for each in [deep(number), deep(number + 10)])

    async def abody(number: int, config: RunnableConfig) -> int:
        with ground.probe(f"middle {number}", config):
            return sum(await asyncio.gather(deep(number), deep(number + 10)))

    middle = made(body if ground.way == "sync" else abody)

    def main(number: int) -> int:
        return sum(each.result() for each in [middle(number), middle(number + 1)])

    async def amain(number: int) -> int:
        return sum(await asyncio.gather(middle(number), middle(number + 1)))

    return ground.run(whole(ground, main, amain), 1)


@program("functional", ways=BOTH)
def a_question_between_two_tasks(ground: Ground) -> Any:
    """The first task's result is remembered: it runs once, in the first run."""
    one, two = part(ground, "one"), part(ground, "two")

    def main(number: int) -> Any:
        found = one(number).result()
        return two(found).result(), interrupt("well?")

    async def amain(number: int) -> Any:
        found = await one(number)
        answer = interrupt("well?")
        return await two(found), answer

    saver = InMemorySaver()
    flow = whole(ground, main, amain, checkpointer=saver)
    ground.resumed(1, 0, "interrupt")
    return ground.run(flow, 1, THREAD), ground.run(flow, Command(resume="yes"), THREAD)


@program("functional", ways=BOTH)
def a_task_that_is_tried_again(ground: Ground) -> Any:
    left = [1, 1]

    def body(number: int, config: RunnableConfig) -> int:
        with ground.probe("shaky", config):
            if left:
                left.pop()
                raise ConnectionError("again")
            return number

    again = RetryPolicy(initial_interval=0, jitter=False, max_attempts=3, retry_on=ConnectionError)
    shaky = made(body, retry_policy=again)

    def main(number: int) -> Any:
        return shaky(number).result()

    async def amain(number: int) -> Any:
        return await shaky(number)

    return ground.run(whole(ground, main, amain), 1)


@program("functional", ways=BOTH)
def a_task_that_fails_and_is_caught(ground: Ground) -> Any:
    def body(number: int, config: RunnableConfig) -> int:
        with ground.probe("fail", config):
            raise ZeroDivisionError("no")

    fail = made(body)
    step = part(ground)

    def main(number: int) -> Any:
        with contextlib.suppress(ZeroDivisionError):
            fail(number).result()
        return step(number).result()

    async def amain(number: int) -> Any:
        with contextlib.suppress(ZeroDivisionError):
            await fail(number)
        return await step(number)

    return ground.run(whole(ground, main, amain), 1)


@program("functional", ways=BOTH)
def an_entrypoint_that_remembers_its_last_result(ground: Ground) -> Any:
    step = part(ground)

    def main(number: int, *, previous: Any = None) -> Any:
        return entrypoint.final(value=previous, save=step(number + (previous or 0)).result())

    async def amain(number: int, *, previous: Any = None) -> Any:
        return entrypoint.final(value=previous, save=await step(number + (previous or 0)))

    flow = whole(ground, main, amain, checkpointer=InMemorySaver())
    ground.resumed(1, 0, "none")
    return [ground.run(flow, 1, THREAD) for _ in range(3)]


@program("functional", ways=BOTH)
def a_task_called_in_a_node_of_a_graph(ground: Ground) -> Any:
    step = part(ground)

    def then(state: Any) -> Any:
        return {"seen": [str(each.result()) for each in [step(1), step(2)]]}

    async def athen(state: Any) -> Any:
        return {"seen": [str(each) for each in await asyncio.gather(step(1), step(2))]}

    body = ground.node("work", then if ground.way == "sync" else athen)
    return ground.run(chain(ground, "work", "after", work=body).compile(), EMPTY)


@program("functional", ways=BOTH)
def an_entrypoint_that_calls_a_graph(ground: Ground) -> Any:
    graph = chain(ground, "x", "y").compile(name="inner")

    def main(number: int) -> Any:
        return graph.invoke(EMPTY)["seen"]

    async def amain(number: int) -> Any:
        return (await graph.ainvoke(EMPTY))["seen"]

    return ground.run(whole(ground, main, amain), 1)


@program("functional", ways=BOTH)
def tasks_streamed(ground: Ground) -> Any:
    step = part(ground)

    def main(number: int) -> int:
        return int(step(step(number).result()).result())

    async def amain(number: int) -> int:
        return int(await step(await step(number)))

    return ground.items(whole(ground, main, amain), 1, stream_mode="updates")


@program("functional", ways=BOTH)
def futures_that_nobody_waits_for(ground: Ground) -> Any:
    """The run waits for them all the same."""
    step = part(ground)

    def main(number: int) -> str:
        step(number)
        step(number + 1)
        return "done"

    async def amain(number: int) -> str:
        step(number)
        step(number + 1)
        return "done"

    ground.late("part 1", "part 2")
    return ground.run(whole(ground, main, amain), 1)
