"""The benchmarks of policies: what they run, and how they judge."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest

from sostenuto.bench import live_vs_sim
from sostenuto.bench.live_vs_sim import Seen, agreed, drawn, fitted
from sostenuto.bench.policies import goals, main, spread
from sostenuto.runtime.calibrate import Stepped
from sostenuto.scheduler import Costs
from sostenuto.scheduler.simulator import Call, Session, Workload


def test_every_cell_is_run_and_printed_with_what_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "policies.json"
    given = ["--only", "codex", "--sessions", "6", "--seeds", "2", "--policies", "forgetful", "sostenuto", "oracle"]
    main([*given, "--out", str(out)])
    text = capsys.readouterr().out
    rows = json.loads(out.read_text())
    assert {(row["policy"], row["pressure"], row["seed"]) for row in rows} == {
        (policy, pressure, seed)
        for policy in ("forgetful", "sostenuto", "oracle")
        for pressure in (0.8, 2.5, 5.0)
        for seed in (0, 1)
    }
    for told in ("codex: 6 sessions", "32 users", "tokens / 1, pauses / 1", "seeds [0, 1]", "goals of sostenuto"):
        assert told in text
    assert text.count("codex at ") == 3
    assert text.count("  forgetful       1.000 +- 0.000") == 3


def test_goals_say_what_is_reached_and_what_is_missed() -> None:
    means = {
        ("a", 2.5): {"sostenuto": 60.0, "forgetful": 100.0, "mars": 59.0, "oracle": 50.0},
        ("b", 2.5): {"sostenuto": 90.0, "forgetful": 85.0, "mars": 80.0},
        ("c", 0.8): {"sostenuto": 100.0, "forgetful": 100.0},
    }
    _, a, b, c = goals(means)
    assert a == "  a at 2.5: reached; +20.0% against the oracle"
    assert b == "  b at 2.5: missed: mars is 11.1% quicker, 5.9% behind forgetful, only -5.9% ahead of forgetful"
    assert c == "  c at 0.8: reached"


def test_an_interval_is_students() -> None:
    assert list(spread([1.0, 3.0])) == pytest.approx([2.0, 12.71])
    assert spread([2.0]) == (2.0, inf)
    assert list(spread([1.0, 2.0, 3.0])) == pytest.approx([2.0, 4.30 / 3**0.5])


def test_live_and_simulated_are_held_against_each_other() -> None:
    def seen(jct: float, recomputed: int) -> Seen:
        return Seen(jct, 0.1, 0.5, recomputed, 0, refused=0)

    rows: dict[str, Any] = {
        "forgetful": (seen(10, 100), seen(20, 110)),
        "sostenuto": (seen(5, 0), seen(11, 0)),
        "odd": (seen(20, 50), seen(20, 100)),
    }
    found = list(agreed(rows))
    assert found[0] == "forgetful: recomputed -9.1% against live, within 15%"
    assert found[1] == "sostenuto: recomputed +0.0% against live, within 15%"
    assert found[2].endswith("0.500 simulated, 0.550 live, -9.1%, within 25%")
    assert found[3].endswith("NOT within 15%")
    assert found[4].endswith("+100.0%, NOT within 25%")


def test_a_run_that_was_slower_and_had_more_to_do_in_each_step_is_fitted_by_both() -> None:
    costs = Costs(0.05, 4e-4, 3e-7, 2e-3, 2e-6)
    work = [(((n, 100),), turns, 500 * turns) for n in (16, 60, 200) for turns in (0, 1, 5)]
    steps = [Stepped(p, turns, seen, 0.02 + 1.5 * costs.step(p, turns, seen)) for p, turns, seen in work]
    found = fitted(steps, costs)
    assert found.step_s == pytest.approx(0.02 + 1.5 * 0.05)
    assert found.token_s == pytest.approx(6e-4)
    assert found.turn_s == pytest.approx(3e-3)
    # However odd the steps were, nothing is negative, and together they take as long.
    odd = [Stepped(p, turns, seen, 1 / costs.step(p, turns, seen)) for p, turns, seen in work]
    found = fitted(odd, costs)
    assert min(found.step_s, found.token_s, found.pair_s, found.turn_s, found.seen_s) >= 0
    assert sum(found.step(*each) for each in work) == pytest.approx(sum(one.seconds for one in odd))


def test_draws_differ_in_their_pauses_alone_and_by_a_hundredth() -> None:
    call = Call(0, (1, 2), (3,), 1, ("bash",), 2.0)
    lap = Workload("w", [Session("s", (call, call))])
    one, other = drawn([lap], 2)
    assert drawn([lap], 2) == [one, other]
    assert one != other
    for each in (one, other):
        (session,) = each[0].sessions
        assert [replace(changed, pause=2.0) for changed in session.calls] == [call, call]
        assert all(1.98 <= changed.pause <= 2.02 for changed in session.calls)


@pytest.mark.slow
def test_a_trace_runs_live_and_simulated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "live.json"
    given = ["--trace", "generated:shell:3", "--sessions", "3", "--users", "3", "--scale", "32", "--scale-pauses", "20"]
    live_vs_sim.main([*given, "--laps", "1", "--policies", "forgetful", "sostenuto", "--out", str(out)])
    found = json.loads(out.read_text())["rows"]
    assert set(found) == {"forgetful", "sostenuto"}
    for sides in found.values():
        assert sides["live"]["reused_share"] == pytest.approx(sides["simulated"]["reused_share"], abs=0.1)
    assert "JCT as a share of forgetful's" in capsys.readouterr().out
