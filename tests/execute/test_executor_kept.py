"""What is asked twice is asked once where that makes no difference, and what does not fit reaches nobody."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from sostenuto.runtime.execute.executor import Executor
from sostenuto.runtime.execute.policy import Policy
from sostenuto.tools.contracts import Contract

from .calls import BOTH, PURE, READ, WRITE, Fails, Run, beside, job, policy


def test_equal_reads_at_the_same_time_are_one_and_equal_writes_are_two(never: threading.Event) -> None:
    for contract, calls, codes in ((READ, 1, ["ran", "shared"]), (WRITE, 2, ["ran", "ran"])):
        executor, begun = Executor(policy(contract)), threading.Event()
        ran: list[int] = []

        def work(begun: threading.Event = begun, ran: list[int] = ran, executor: Executor = executor) -> str:
            ran.append(1)
            begun.set()
            while len(executor._running) < 2 and len(ran) < 2:
                never.wait(0.001)
            never.wait(0.02)
            return "seen"

        with beside(executor, [(job(n=1), work), (job(n=1), work)]) as found:
            pass
        assert (len(ran), sorted(one.result().code for one in found)) == (calls, codes)
        assert {one.result().value for one in found} == {"seen"}


def test_who_shares_a_flight_that_fails_flies_itself(never: threading.Event) -> None:
    executor, tool, waited = Executor(policy()), Fails(1), threading.Event()

    def work() -> str:
        while len(executor._running) < 2 and not waited.is_set():
            never.wait(0.001)
        never.wait(0.02)
        waited.set()
        return tool()

    with beside(executor, [(job(n=1), work), (job(n=1), work)]) as found:
        pass
    assert sorted(one.result().code for one in found) == ["failed", "ran"]


def test_an_answer_is_kept_until_what_it_depends_on_is_written() -> None:
    look = Contract("read", reads=("db:{id}",), cache=True)
    executor = Executor(Policy({"look": look, "book": Contract("write", writes=("db:{id}",))}))
    seen: list[int] = []

    def look_up() -> int:
        seen.append(1)
        return len(seen)

    def ask(tenant: str = "a", **arguments: Any) -> tuple[str, Any]:
        outcome = executor.run(job(tenant=tenant, **arguments), look_up)
        return outcome.code, outcome.value

    assert [ask(id=1), ask(id=1), ask(id=2)] == [("ran", 1), ("cached", 1), ("ran", 2)]
    executor.run(job("book", id=2), lambda: None)
    assert [ask(id=1), ask(id=2)] == [("cached", 1), ("ran", 3)]
    executor.run(job("book", id=1), Fails(9))
    assert ask(id=1) == ("ran", 4), "a write that failed may have written"
    assert ask("b", id=1) == ("ran", 5), "what one tenant asked tells another nothing"
    executor.run(job("anything"), lambda: None)
    assert ask(id=1) == ("ran", 6), "a tool of which nothing is known may have written all"


def test_what_was_read_while_somebody_wrote_is_not_found_after_a_rollback_either() -> None:
    executor = Executor(Policy({"look": Contract("read", reads=("db",), cache=True), "book": WRITE}))
    mark = executor.branch("a", "s").fork()
    executor.run(job(), lambda: executor.run(job("book"), lambda: None))
    executor.roll_back("a", "s", mark)
    assert executor.run(job(), lambda: "new").code == "ran"


def test_what_is_written_while_a_read_is_under_way_keeps_it_out_of_the_cache() -> None:
    executor = Executor(Policy({"look": Contract("read", reads=("db",), cache=True), "book": WRITE}))
    executor.run(job(), lambda: executor.run(job("book"), lambda: None))
    assert executor.run(job(), lambda: "new").code == "ran"


def test_branches_see_only_their_own_writes_and_a_rollback_finds_its_answers_again() -> None:
    executor = Executor(Policy({"look": Contract("read", reads=("db",), cache=True), "book": WRITE}))
    executor.branch("a", "left")
    executor.branch("a", "right", of="left")
    mark = executor.state("a", "left").fork()
    assert executor.run(job(session="left"), lambda: 1).code == "ran"
    executor.run(job("book", session="right"), lambda: None)
    assert executor.run(job(session="left"), lambda: 2).code == "cached"
    assert executor.run(job(session="right"), lambda: 3).value == 3
    executor.run(job("book", session="left"), lambda: None)
    assert executor.run(job(session="left"), lambda: 4).value == 4
    executor.roll_back("a", "left", mark)
    assert executor.run(job(session="left"), lambda: 5).value == 1


def test_nothing_is_kept_unless_its_contract_says_so() -> None:
    executor = Executor(policy(PURE))
    assert [executor.run(job(), lambda: 1).code for _ in range(2)] == ["ran", "ran"]


@BOTH
@pytest.mark.parametrize(
    ("returns", "value", "says"),
    [
        (None, "x" * 101, "101 characters"),
        ({"type": "object", "required": ["n"]}, {"m": 1}, "'n' is a required property"),
        ({"type": "integer"}, "no json", "not JSON"),
        ({"type": "integer"}, '"1"', "integer"),
    ],
)
def test_a_result_that_is_none_never_reaches_the_model(run: Run, returns: Any, value: Any, says: str) -> None:
    outcome = run(Executor(policy(Contract("read", returns=returns), longest=100)), job(), lambda: value)
    assert (outcome.code, outcome.value, says in outcome.told) == ("misshapen", None, True)


def test_a_result_that_fits_does() -> None:
    executor = Executor(policy(Contract("read", returns={"type": "integer"})))
    assert [executor.run(job(), lambda value=value: value).code for value in (1, "2")] == ["ran", "ran"]  # type: ignore[misc]


@BOTH
def test_a_call_whose_preconditions_do_not_hold_is_not_made(run: Run) -> None:
    ship = Contract("write", requires={"order": {"const": "paid"}}, ensures={"order": "shipped"})
    executor, shipped = Executor(Policy({"ship": ship})), []
    assert run(executor, job("ship"), lambda: shipped.append(1)).code == "unmet"
    executor.state().know({"order": "paid"})
    assert run(executor, job("ship"), lambda: shipped.append(1)).code == "ran"
    again = run(executor, job("ship"), lambda: shipped.append(1))
    assert (again.code, shipped, "order" in again.told) == ("unmet", [1], True)
