"""A plan is looked through on what is known and promised, and nothing is called for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sostenuto.runtime.cli import main
from sostenuto.runtime.cli_plan import latencies
from sostenuto.runtime.execute.audit import Audit
from sostenuto.tools.contracts import Contract
from sostenuto.tools.contracts_plan import Cost, Planned, cost, quantile, rehearse

CONTRACTS = {
    "look": Contract("read", reads=("order:{id}",)),
    "pay": Contract(
        "write",
        writes=("order:{id}",),
        requires={"order:{id}": {"const": "open"}},
        ensures={"order:{id}": "paid"},
    ),
    "ship": Contract("write", writes=("parcel:{id}",), requires={"order:{id}": {"const": "paid"}}),
}
FACTS: Any = {"order:1": "open", "order:2": "cancelled"}


def plan(*calls: tuple[str, int]) -> tuple[Planned, ...]:
    return rehearse([(tool, {"id": number}) for tool, number in calls], CONTRACTS, FACTS)


@pytest.mark.parametrize(
    ("calls", "stands"),
    [
        ([("pay", 1), ("ship", 1)], ["holds", "holds"]),
        ([("ship", 1), ("pay", 1)], ["broken", "holds"]),
        ([("pay", 1), ("pay", 1)], ["holds", "broken"]),
        ([("pay", 2)], ["broken"]),
        ([("pay", 3), ("ship", 3)], ["unknown", "holds"]),
        ([("anything", 1), ("pay", 1)], ["holds", "unknown"]),
        ([], []),
    ],
)
def test_each_call_stands_on_facts_and_on_what_those_before_it_promise(
    calls: list[tuple[str, int]], stands: list[str]
) -> None:
    assert [each.stands for each in plan(*calls)] == stands


def test_calls_wait_for_what_they_need_and_for_nothing_else() -> None:
    steps = plan(("look", 1), ("look", 2), ("pay", 1), ("ship", 1), ("look", 2))
    assert [each.after for each in steps] == [(), (), (0,), (2,), ()]


def test_a_plan_costs_its_longest_chain() -> None:
    steps = plan(("look", 1), ("look", 2), ("pay", 1), ("ship", 1))
    assert cost(steps, {"look": 1.0, "pay": 2.0}) == Cost(3.0, 4.0, ("ship",))
    assert cost((), {}) == Cost(0.0, 0.0, ())


def test_a_quantile_is_a_value_that_was_seen() -> None:
    assert [quantile([3.0, 1.0, 2.0, 4.0], share) for share in (0.0, 0.25, 0.5, 0.95, 1.0)] == [1.0, 1.0, 2.0, 4.0, 4.0]
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    return {
        "tools": {
            "pay": {"effects": "write", "requires": {"order": {"const": "open"}}, "ensures": {"order": "paid"}},
            "look": {"effects": "read", "reads": ["order"]},
        },
        "facts": {"order": "open"},
        "calls": [{"tool": "pay", "arguments": {"n": 1}}, {"tool": "look"}],
    }


def test_the_command_says_what_holds_and_what_it_costs_by_the_log(
    given: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, log = tmp_path / "plan.json", tmp_path / "audit.jsonl"
    file.write_text(json.dumps(given))
    with Audit(log, b"a key of thirty-two bytes, or so") as audit:
        for seconds in (1.0, 2.0, 3.0):
            audit.append("ended", {"tool": "pay", "code": "ran", "seconds": seconds})
        audit.append("ended", {"tool": "pay", "code": "failed", "seconds": 99.0})
    assert latencies(log) == {"pay": [1.0, 2.0, 3.0]}
    assert main(["tools", "plan", str(file), "--audit", str(log), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["holds"], told["not_learned"]) == (True, ["look"])
    assert told["seconds"] == {
        "p50": {"side_by_side": 2.0, "in_a_row": 2.0},
        "p95": {"side_by_side": 3.0, "in_a_row": 3.0},
    }
    given["facts"] = {"order": "paid"}
    file.write_text(json.dumps(given))
    assert main(["tools", "plan", str(file), "--audit", str(log)]) == 1
    shown = capsys.readouterr().out
    assert "1 pay: broken\n   order does not hold: 'open' was expected" in shown
    assert "2 look: holds, behind 1" in shown
    assert "half of the time within 2 s" in shown


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("[]", "found no JSON object"),
        ("{", "not JSON"),
        ('{"calls": [{"name": "pay"}]}', "expected"),
        ('{"tools": {"pay": {"effect": "write"}}}', "the contract of pay"),
        ('{"tools": {"pay": {"effects": "all"}}}', "pure, read, write, external"),
    ],
)
def test_a_plan_that_is_none_is_named(
    wrong: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "plan.json"
    file.write_text(wrong)
    assert main(["tools", "plan", str(file)]) == 1
    assert says in capsys.readouterr().err
