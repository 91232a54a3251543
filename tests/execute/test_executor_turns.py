"""Calls stand beside one another as their turn, their tool and their tenant allow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel

from sostenuto.runtime.execute.executor import Executor
from sostenuto.runtime.execute.policy import Policy
from sostenuto.tools.limits import Limits

from .calls import BOTH, READ, WRITE, Fails, Run, Turned, beside, job, policy, turn


@BOTH
def test_too_many_calls_of_a_tenant_are_told_when_to_come_again(run: Run) -> None:
    turned = Turned()
    executor = Executor(policy(WRITE, rate=0.5, burst=2), clock=turned.clock)
    codes = [run(executor, job(), lambda: 1).code for _ in range(3)]
    assert codes == ["ran", "ran", "limited"]
    last = run(executor, job(), lambda: 1)
    assert (last.retry_after, "2.0 s" in last.told) == (2.0, True)
    assert run(executor, job(tenant="b"), lambda: 1).code == "ran", "another tenant has its own"
    turned.now += 2
    assert run(executor, job(), lambda: 1).code == "ran"


def test_a_tenants_limit_holds_for_all_its_tools_together() -> None:
    executor = Executor(Policy(tenant=Limits(rate=1, burst=2)), clock=Turned().clock)
    assert [executor.run(job(name), lambda: 1).code for name in ("x", "y", "z")] == ["ran", "ran", "limited"]


@BOTH
def test_a_tool_that_keeps_failing_is_left_alone_and_probed(run: Run) -> None:
    turned = Turned()
    executor = Executor(policy(WRITE, failures=2, cooldown=30), clock=turned.clock)
    tool = Fails(3)
    codes = [run(executor, job(), tool).code for _ in range(3)]
    assert (codes, tool.calls) == (["failed", "failed", "open"], 2)
    turned.now += 30
    assert [run(executor, job(), tool).code for _ in range(2)] == ["failed", "open"]
    turned.now += 30
    assert [run(executor, job(), tool).code for _ in range(2)] == ["ran", "ran"]


def test_no_more_run_at_once_than_may_and_the_rest_follow_in_order(never: threading.Event) -> None:
    executor = Executor(policy(WRITE, at_once=2))
    lock, most, now = threading.Lock(), 0, 0

    def work() -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        never.wait(0.005)
        with lock:
            now -= 1

    with beside(executor, [(job(n=n), work) for n in range(6)]) as all_of_them:
        pass
    assert ([one.result().code for one in all_of_them], most) == (["ran"] * 6, 2)


def test_reads_of_one_turn_run_side_by_side_and_writes_in_order() -> None:
    executor = Executor(Policy({"look": READ, "book": WRITE}))
    jobs = turn(("look", {"n": 1}), ("look", {"n": 2}), ("book", {"n": 3}), ("book", {"n": 4}))
    executor.expect(jobs[0].sibling)  # type: ignore[arg-type]
    meet, done = threading.Barrier(2, timeout=10), []

    def look() -> None:
        meet.wait()  # both are here at the same time
        done.append("look")

    attempts: list[Callable[[], Any]] = [look, look, lambda: done.append("third"), lambda: done.append("fourth")]
    # The last comes first: only their order in the turn counts.
    with beside(executor, list(reversed(list(zip(jobs, attempts, strict=True))))) as all_of_them:
        pass
    assert [one.result().code for one in all_of_them] == ["ran"] * 4
    assert done == ["look", "look", "third", "fourth"]
    assert "<Turns 0>" in repr(executor)


async def test_in_a_loop_the_order_of_a_turn_is_the_same() -> None:
    executor, done = Executor(Policy({"look": READ, "book": WRITE})), []
    jobs = turn(("book", {"n": 1}), ("look", {"n": 1}), ("book", {"n": 2}))
    executor.expect(jobs[0].sibling)  # type: ignore[arg-type]

    async def call(place: int) -> None:
        async def attempt() -> None:
            await anyio.lowlevel.checkpoint()
            done.append(place)

        await executor.arun(jobs[place], attempt)

    async with anyio.create_task_group() as group:
        for place in (2, 1, 0):
            group.start_soon(call, place)
    assert done == [0, 1, 2]


def test_one_that_fails_loses_no_others_result_and_holds_nobody_up() -> None:
    executor = Executor(Policy({"look": READ, "book": WRITE}))
    jobs = turn(("book", {"n": 1}), ("look", {}), ("book", {"n": 2}))
    executor.expect(jobs[0].sibling)  # type: ignore[arg-type]
    with beside(executor, [(jobs[0], Fails(9)), (jobs[1], lambda: "seen"), (jobs[2], lambda: "booked")]) as found:
        pass
    assert [one.result().code for one in found] == ["failed", "ran", "ran"]
    assert [one.result().value for one in found[1:]] == ["seen", "booked"]


def test_a_call_that_was_not_made_holds_nobody_up() -> None:
    executor = Executor()
    jobs = turn(("x", {}), ("y", {}))
    executor.expect(jobs[0].sibling)  # type: ignore[arg-type]
    executor.reject(jobs[0].call, jobs[0].place, "invalid", jobs[0].sibling)
    assert executor.run(jobs[1], lambda: 1).code == "ran"


async def test_loops_and_threads_share_the_same_places() -> None:
    executor, order = Executor(policy(WRITE, at_once=1)), []
    begun, go = anyio.Event(), anyio.Event()

    async def first() -> None:
        begun.set()
        await go.wait()
        order.append("loop")

    async def thread() -> None:
        await anyio.to_thread.run_sync(lambda: executor.run(job(), lambda: order.append("thread")))

    async with anyio.create_task_group() as group:
        group.start_soon(executor.arun, job(), first)
        await begun.wait()
        group.start_soon(thread)
        while "1 waiting" not in repr(executor):
            await anyio.lowlevel.checkpoint()
        go.set()
    assert order == ["loop", "thread"]


def test_one_executor_serves_one_loop_after_another() -> None:
    executor = Executor(policy(READ, at_once=1))

    async def look() -> str:
        await anyio.lowlevel.checkpoint()
        return "seen"

    def attempt() -> Awaitable[str]:
        return look()

    assert [asyncio.run(executor.arun(job(), attempt)).value for _ in range(3)] == ["seen"] * 3
