"""What a tool touches decides what may run beside it; what is known of the world decides what still holds."""

from __future__ import annotations

from typing import Any

import pytest

from sostenuto.tools import BadTool
from sostenuto.tools.contracts import EFFECTS, UNDECLARED, Contract, Touch, filled, misfits, overlap, touch, waits
from sostenuto.tools.contracts_state import State, unmet

READ = Contract("read", reads=("db:orders/{id}",))
WRITE = Contract("write", writes=("db:orders/{id}",))


def touches(*calls: tuple[Contract, dict[str, Any]]) -> list[Touch]:
    return [touch(contract, arguments) for contract, arguments in calls]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"effects": "harmless"}, "pure, read, write, external"),
        ({"effects": "read", "writes": ("db:x",)}, "changes something"),
        ({"effects": "pure", "ensures": {"x": 1}}, "changes something"),
        ({"effects": "pure", "reads": ("db:x",)}, "`read`"),
        ({"effects": "write", "cache": True}, "a cache"),
        ({"effects": "read", "cache": True}, "says of what"),
        ({"requires": {"x": {"type": "no such type"}}}, "x at"),
        ({"returns": {"$ref": "https://far.away/schema"}}, "returns at"),
    ],
)
def test_a_contract_that_contradicts_itself_is_refused(wrong: Any, says: str) -> None:
    with pytest.raises(BadTool, match=says):
        Contract(**wrong)


def test_only_what_changes_nothing_or_is_declared_so_may_be_tried_again() -> None:
    assert [Contract(effects).repeatable for effects in EFFECTS] == [True, True, False, False]
    assert Contract("write", idempotent=True).repeatable
    assert UNDECLARED.effects == "external"


def test_reads_wait_for_no_read_and_writes_for_what_they_disturb() -> None:
    found = waits(
        touches((READ, {"id": 1}), (READ, {"id": 1}), (WRITE, {"id": 1}), (READ, {"id": 1}), (READ, {"id": 2}))
    )
    assert [sorted(each) for each in found] == [[], [], [0, 1], [2], []]


def test_of_what_nothing_is_said_everything_waits_for() -> None:
    found = waits(touches((UNDECLARED, {}), (Contract("pure"), {}), (Contract("read"), {}), (UNDECLARED, {})))
    assert [sorted(each) for each in found] == [[], [], [0], [0, 2]]


def test_calls_that_commute_wait_for_none_that_does() -> None:
    notes = Contract("write", commutes=True)
    found = waits(touches((notes, {}), (notes, {}), (UNDECLARED, {})))
    assert [sorted(each) for each in found] == [[], [], [0, 1]]


def test_nobody_waits_for_a_later_call() -> None:
    every = touches(*[(contract, {"id": n}) for n in range(3) for contract in (READ, WRITE, UNDECLARED)])
    assert all(before < place for place, each in enumerate(waits(every)) for before in each)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("db:a", "db:a", True),
        ("db:a", "db:ab", False),
        ("db:*", "db:ab", True),
        ("db:ab", "db:*", True),
        ("db:a*", "db:*", True),
        ("db:*", "fs:*", False),
        ("*", "anything", True),
    ],
)
def test_names_overlap_where_one_stands_for_the_other(left: str, right: str, same: bool) -> None:
    assert overlap((left,), (right,)) is same


def test_an_argument_cannot_widen_a_name() -> None:
    assert filled("db:{id}/x", {"id": "*"}) == "db:%2A/x"
    assert filled("db:{id}/x", {"id": "1/../2"}) == "db:1%2F..%2F2/x"
    assert filled("db:{id}/x", {}) == "db:*"


def test_a_digest_changes_when_what_it_is_of_is_written_and_only_then() -> None:
    state = State()
    before, other = state.digest(["db:orders/1"]), state.digest(["db:orders/2"])
    state.wrote(["db:orders/1"])
    assert (state.digest(["db:orders/1"]) == before, state.digest(["db:orders/2"]) == other) == (False, True)
    state.wrote(["db:*"])
    assert state.digest(["db:orders/2"]) != other


def test_a_branch_sees_no_other_branch_and_a_rollback_gives_no_version_twice() -> None:
    state = State({"open": True})
    mark = state.fork()
    state.wrote(["db:1"])
    state.know({"open": False})
    assert (mark.fact("open"), state.fact("open")) == ((True, True), (True, False))
    old = mark.digest(["db:1"])
    again = mark.fork()
    assert again.digest(["db:1"]) == old
    again.wrote(["db:1"])
    assert len({old, state.digest(["db:1"]), again.digest(["db:1"])}) == 3
    assert mark.digest(["db:1"]) == old


def test_a_write_makes_what_depended_on_it_unknown() -> None:
    state = State({"db:orders/1": "open", "weather": "fine"})
    state.done(WRITE, {"id": 1})
    assert state.fact("db:orders/1") == (False, None)
    assert state.fact("weather") == (True, "fine")
    state.done(UNDECLARED, {})
    assert state.fact("weather") == (False, None)


def test_preconditions_hold_are_broken_or_are_not_known() -> None:
    ship = Contract(
        "write", requires={"order:{id}": {"const": "paid"}}, ensures={"order:{id}": "shipped", "last": "{id}"}
    )
    state = State({"order:1": "paid", "order:2": "open"})
    assert [[how for how, _ in unmet(ship, {"id": n}, state)] for n in (1, 2, 3)] == [[], ["broken"], ["unknown"]]
    assert "order:2" in unmet(ship, {"id": 2}, state)[0][1].message
    state.ensured(ship, {"id": 1})
    assert (state.fact("order:1"), state.fact("last")) == ((True, "shipped"), (True, 1))


def test_what_does_not_fit_a_schema_is_said() -> None:
    assert misfits({"type": "integer"}, 1) == ()
    assert "integer" in misfits({"type": "integer"}, "1")[0].message
