"""A call is tried, cut off and given up as its contract and limits say, in threads and in loops."""

from __future__ import annotations

import threading

import anyio
import anyio.lowlevel
import pytest

from sostenuto.runtime.execute.cancel import cancelled
from sostenuto.runtime.execute.deadline import ToolTimedOut
from sostenuto.runtime.execute.executor import Executor
from sostenuto.runtime.execute.outcome import Outcome
from sostenuto.runtime.execute.policy import Policy
from sostenuto.tools.contracts import Contract

from .calls import BOTH, PURE, READ, WRITE, Fails, Run, Turned, beside, eager, job, policy


@BOTH
def test_what_answers_is_answered(run: Run) -> None:
    outcome = run(Executor(), job(), lambda: "yes")
    assert (outcome.code, outcome.value, outcome.attempts) == ("ran", "yes", 1)


@BOTH
@pytest.mark.parametrize(
    ("contract", "calls", "code"),
    [
        (PURE, 3, "ran"),
        (READ, 3, "ran"),
        (WRITE, 1, "failed"),
        (Contract("external"), 1, "failed"),
        (Contract("write", idempotent=True), 3, "ran"),
    ],
)
def test_only_what_may_be_repeated_is_tried_again(run: Run, contract: Contract, calls: int, code: str) -> None:
    tool = Fails(2)
    outcome = run(eager(policy(contract, retries=5)), job(), tool)
    assert (tool.calls, outcome.code, outcome.attempts) == (calls, code, calls)


@BOTH
def test_nothing_is_tried_again_unless_somebody_says_so(run: Run) -> None:
    tool = Fails(1)
    outcome = run(eager(policy(PURE)), job(), tool)
    assert (tool.calls, outcome.code, outcome.told) == (1, "failed", "look failed: ValueError: no")


@BOTH
def test_a_far_end_that_is_lost_leaves_a_write_unknown_and_it_is_not_tried_again(run: Run) -> None:
    tool = Fails(9, ConnectionResetError("gone"))
    outcome = run(eager(policy(WRITE, retries=5)), job(), tool)
    assert (tool.calls, outcome.code) == (1, "unknown")
    assert "not known" in outcome.told
    assert run(eager(policy(READ)), job(), Fails(9, ConnectionResetError("gone"))).code == "failed"


def test_a_read_that_hangs_is_late_and_a_write_that_hangs_is_unknown(never: threading.Event) -> None:
    codes = [Executor(policy(each, timeout=0.02)).run(job(), never.wait).code for each in (READ, WRITE)]
    assert codes == ["late", "unknown"]


async def test_a_coroutine_that_hangs_is_cancelled_and_so_is_what_it_runs() -> None:
    ended = []

    async def hang() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(True)

    executor = Executor(policy(WRITE, timeout=0.02, retries=3))
    outcome = await executor.arun(job(), hang)
    assert (outcome.code, outcome.attempts, ended) == ("unknown", 1, [True])


def test_a_tool_in_a_thread_hears_that_nobody_waits_any_more(never: threading.Event) -> None:
    heard = threading.Event()

    def patient() -> None:
        while not cancelled():
            never.wait(0.001)
        heard.set()

    assert Executor(policy(timeout=0.02)).run(job(), patient).code == "late"
    assert heard.wait(10)
    assert not cancelled(), "outside of a call nobody is cancelled"


def test_a_thread_that_hangs_keeps_its_place_so_that_they_do_not_pile_up(never: threading.Event) -> None:
    executor = Executor(policy(at_once=1, timeout=0.02, deadline=0.04))
    assert executor.run(job(), never.wait).code == "late"
    begun: list[bool] = []
    outcome = executor.run(job(n=2), lambda: begun.append(True))
    assert (outcome.code, outcome.attempts, begun) == ("late", 0, [])
    never.set()
    while "0 taken" not in repr(executor):
        threading.Event().wait(0.001)
    assert executor.run(job(), lambda: "yes").code == "ran"


async def test_a_caller_that_goes_away_takes_its_tool_along_and_leaves_nothing() -> None:
    executor = Executor(policy(WRITE))
    ended: list[bool] = []

    async def hang() -> None:
        caller.cancel()
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(True)

    with anyio.CancelScope() as caller:
        await executor.arun(job(), hang)
    assert ended == [True]
    assert (
        repr(executor)
        == "<Executor 0 running | <Slots 0 taken, 0 waiting> | <Turns 0> | <Kept 0 answers, 0 under way>>"
    )


async def test_a_call_can_be_given_up_from_outside() -> None:
    executor = Executor(Policy({"look": READ, "book": WRITE}))
    begun = anyio.Event()
    outcomes: dict[str, Outcome] = {}

    async def hang() -> None:
        begun.set()
        await anyio.sleep_forever()

    async def call(name: str, tenant: str) -> None:
        outcomes[name] = await executor.arun(job(name, tenant=tenant), hang)

    async with anyio.create_task_group() as group:
        group.start_soon(call, "look", "a")
        group.start_soon(call, "book", "a")
        await begun.wait()
        await anyio.lowlevel.checkpoint()
        assert executor.cancel("its grant was revoked", lambda one: one.tenant == "b") == 0
        assert executor.cancel("its grant was revoked", lambda one: one.tenant == "a") == 2
    assert {name: outcome.code for name, outcome in outcomes.items()} == {"look": "cancelled", "book": "unknown"}
    assert "revoked" in outcomes["book"].told


def test_a_call_in_a_thread_can_be_given_up_too(never: threading.Event) -> None:
    executor = Executor(policy(WRITE, timeout=60))
    begun = threading.Event()

    def hang() -> None:
        begun.set()
        never.wait()

    with beside(executor, [(job(), hang)]) as (one,):
        assert begun.wait(10)
        executor.cancel("enough", lambda _: True)
    assert one.result().code == "unknown"


@BOTH
def test_a_deadline_binds_attempts_and_pauses_together(run: Run) -> None:
    turned = Turned()
    tool = Fails(9)

    def slow() -> str:
        turned.now += 4
        return tool()

    executor = eager(policy(READ, retries=9, deadline=10), clock=turned.clock)
    executor._luck = lambda: 0.001  # a pause above nothing
    outcome = run(executor, job(), slow)
    assert (tool.calls, outcome.code) == (3, "failed")


def test_a_slow_read_is_hedged_and_the_first_answer_counts(never: threading.Event) -> None:
    begun: list[int] = []

    def sometimes() -> str:
        begun.append(1)
        if len(begun) == 1:
            never.wait()
            return "slow"
        return "quick"

    outcome = Executor(policy(hedge=0.01)).run(job(), sometimes)
    assert (outcome.value, len(begun)) == ("quick", 2)
    begun.clear()
    assert Executor(policy(WRITE, hedge=0.01, timeout=0.05)).run(job(), sometimes).code == "unknown"
    assert len(begun) == 1, "what changes something is never made twice"


async def test_in_a_loop_the_slower_of_two_is_cancelled() -> None:
    begun: list[int] = []
    ended: list[int] = []

    async def sometimes() -> str:
        number = len(begun)
        begun.append(1)
        try:
            if not number:
                await anyio.sleep_forever()
            return "quick"
        finally:
            ended.append(number)

    outcome = await Executor(policy(hedge=0.01)).arun(job(), sometimes)
    assert (outcome.value, sorted(ended)) == ("quick", [0, 1])


async def test_a_hedged_read_of_which_both_fail_fails() -> None:
    async def fail() -> None:
        await anyio.sleep(0.02)
        raise LookupError("no")

    outcome = await Executor(policy(hedge=0.001)).arun(job(), fail)
    assert (outcome.code, outcome.told) == ("failed", "look failed: LookupError: no")


def test_a_tools_own_timeout_is_its_own_failure() -> None:
    outcome = Executor(policy(READ, timeout=60)).run(job(), Fails(1, TimeoutError("upstream")))
    assert (outcome.code, "upstream" in outcome.told) == ("failed", True)
    assert issubclass(ToolTimedOut, Exception)
