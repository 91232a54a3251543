"""`sostenuto simulate`: its table, its JSON, its page, policies of one's own; and that it is the loop's schedule."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sostenuto.runtime.cli import main
from sostenuto.runtime.journal import encode
from sostenuto.runtime.report import page
from sostenuto.runtime.report.plots import Curve, curves
from sostenuto.runtime.simulating import Pool, compared, kernel_for
from sostenuto.runtime.traces import Arrangement, arranged, open_trace
from sostenuto.scheduler import (
    Closed,
    Effect,
    Event,
    Future,
    Policy,
    ProgramId,
    Stalled,
    Tick,
    ToolEnded,
    ToolStarted,
    Waiting,
    World,
    named,
    oracle,
)
from sostenuto.scheduler.simulator import STATED, Conditions, Figures, Lane, Load, Stretch, simulate

from .conftest import Pair, Stage, draw

ROW = {
    "policy",
    "jct_mean_s",
    "jct_p50_s",
    "jct_p99_s",
    "ttft_resume_p50_s",
    "reused_share",
    "recomputed_tokens",
    "goodput",
    "regret",
}
SMALL = ["simulate", "--trace", "generated:claude:8", "--users", "4", "--pool-tokens", "80000", "--seed", "3"]


def shown(capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert main([*SMALL, *more]) == 0
    return capsys.readouterr().out


def test_json_is_one_object_of_the_promised_shape(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(shown(capsys, "--policy", "forgetful,sostenuto", "--json"))
    assert set(found) == {"trace", "settings", "rows"}
    assert found["trace"] == "generated:claude:8"
    assert [row["policy"] for row in found["rows"]] == ["forgetful", "sostenuto"]
    assert all(set(row) == ROW for row in found["rows"])
    asked = {"pool_tokens": 80_000, "users": 4, "seed": 3, "scale_tokens": 1, "scale_pauses": 1.0, "alpha": 3.0}
    assert found["settings"].items() >= asked.items()
    forgetful, ours = found["rows"]
    assert 0 < ours["jct_mean_s"] != forgetful["jct_mean_s"]
    assert ours["reused_share"] > forgetful["reused_share"]
    full = json.loads(shown(capsys, "--json", "--full"))["rows"][0]
    assert set(full) == set(Figures.__dataclass_fields__)


def test_the_table_states_what_was_run(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "--scale-pauses", "2", "--scale-tokens", "4")
    for told in ("generated:claude:8", "pool 80000", "4 users", "seed 3", "tokens / 4", "pauses / 2", "R = k d"):
        assert told in text
    assert re.search(r"^ *policy +jobs +JCT mean", text, re.MULTILINE)
    assert text.count("\nsostenuto ") == text.count("\nforgetful ") == 1


def test_the_same_seed_gives_the_same_figures_and_another_one_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "--json") == shown(capsys, "--json")
    assert json.loads(shown(capsys, "--json"))["rows"] != json.loads(shown(capsys, "--json", "--seed", "4"))["rows"]


def test_the_page_needs_nothing_beside_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out.html"
    shown(capsys, "--report", str(file))
    text = file.read_text(encoding="utf-8")
    assert text.count("<svg") == 4  # two plots, and a timeline for each policy
    assert not re.search(r"https?:|<script|<link|src=|@import|url\(", text)
    for told in ("How long jobs took", "reused, over time", "What sessions did", "pool tokens 80000", "seed 3"):
        assert told in text
    for kind in ("waiting", "computing", "recomputing", "held", "speaking", "paused"):
        assert f"<title>{kind} " in text
    assert text.count("<polyline") == 4


def test_a_page_without_anything_says_so() -> None:
    workload = arranged(open_trace("generated:shell:1"), Arrangement(users=1, sessions=0))
    results = compared(workload, [named("sostenuto")], Pool(100_000), conditions=Conditions(STATED, 1))
    assert "nothing to draw" in page("none", {}, results)


def test_a_policy_of_ones_own_comes_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from sostenuto.scheduler import Policy\nMINE = Policy(name='mine')\nODD = 3\n")
    found = json.loads(shown(capsys, "--policy", f"forgetful,{file}:MINE", "--json"))["rows"]
    assert {key: value for key, value in found[1].items() if key != "policy"} == {
        key: value for key, value in found[0].items() if key != "policy"
    }
    assert found[1]["policy"] == "mine"
    for wrong, told in (
        (f"{file}:ODD", "has no policy ODD: found int"),
        ("none.py:X", "no file none.py"),
        ("no", "no"),
    ):
        assert main([*SMALL, "--policy", wrong]) == 1
        assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--users", "0"], "--users: found 0; expected 1 or more"),
        (["--pool-tokens", "100"], "holds not one page of 1024"),
        (["--scale-tokens", "7"], "expected a divisor of 64"),
        (["--costs", "none.json"], "there is no file none.json; expected costs: calibrate anew"),
        (["--pool-tokens", "9" * 15], "pages; expected 2097152 at most"),
        (["--pool-tokens", "1024"], "were refused: give the pool more than 1024 tokens"),
        (["--host-tokens", "-1"], "--host-tokens: found -1; expected 0 or more"),
        (["--scale-pauses", "nan"], "--scale-pauses: found nan; expected from 1e-06 to 1e+06"),
        (["--scale-pauses", "1e-300"], "--scale-pauses: found 1e-300"),
        (["--alpha", "0.5"], "--alpha: found 0.5; expected from 1 to 1e+06"),
        (["--alpha", "nan"], "--alpha: found nan"),
        (["--report", "none/out.html"], "expected a file in a folder that there is"),
        (["--policy", "mars, mars"], "found 'mars' twice"),
        (["--policy", "no"], "or, to simulate, oracle"),
        (["--trace", ""], "found no name of a trace"),
        (["--trace", "generated:shell:0"], "SESSIONS from 1 up"),
        (["--trace", "pyproject.toml"], "one of: block_size session; "),
    ],
)
def test_wrong_numbers_are_named(wrong: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *wrong]) == 1
    assert told in capsys.readouterr().err


def test_a_small_trace_fits_the_pool_that_nobody_chose(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--trace", "generated:shell:1", "--users", "1", "--json", "--full"]) == 0
    assert [row["refused"] for row in json.loads(capsys.readouterr().out)["rows"]] == [0, 0]


def test_what_was_refused_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "--pool-tokens", "40000")
    assert re.search(r"^note: under forgetful \d+ jobs were refused, whose calls need more than the pool", text, re.M)


def test_a_tier_that_holds_no_page_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    def rows(*more: str) -> Any:
        return json.loads(shown(capsys, "--json", "--full", "--policy", "sostenuto", *more))["rows"]

    assert rows("--host-tokens", "1023") == rows()
    assert rows("--host-tokens", "100000")[0]["moves"] > 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("MINE = (", "cannot be run: SyntaxError"),
        ("import nothing_of_that_name", "cannot be run: ModuleNotFoundError"),
        ("raise SystemExit(3)", "cannot be run: SystemExit: 3"),
        ("OTHER = 1", "has no policy MINE: found nothing"),
        ("from sostenuto.scheduler import Policy\nMINE = Policy(name='oracle')", "calls itself oracle"),
        ("from sostenuto.scheduler import Policy\nMINE = Policy(name='mars')", "a policy by the name 'mars'"),
    ],
)
def test_a_file_without_a_policy_is_told(
    text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    assert main([*SMALL, "--policy", f"{file}:MINE"]) == 1
    assert told in capsys.readouterr().err


def test_a_policy_that_takes_the_room_away_ends_its_simulation() -> None:
    def thief(world: World, turn: Waiting) -> tuple[float, ...]:
        books: Any = world
        books.ledger.alloc(books.ledger.available)
        return (turn.number,)

    workload = arranged(open_trace("generated:claude:3"), Arrangement(users=3))
    with pytest.raises(Stalled, match="under thief 3 turns wait and nothing is left to happen"):
        compared(workload, [Policy("thief", order=thief)], Pool(80_000), conditions=Conditions(STATED, 3))


def test_every_curve_of_twelve_can_be_told() -> None:
    text = curves([Curve(f"c{n}", [(1.0, 0.5), (2.0, 1.0)]) for n in range(12)], x="seconds")
    drawn = re.findall(r'<polyline points="[^"]*" (stroke="[^>]*)><title>', text)
    assert len(set(drawn)) == 12
    assert "c11 (dashed)" in text


def test_regret_is_that_against_the_oracle() -> None:
    workload = arranged(open_trace("generated:claude:6"), Arrangement(users=6))
    conditions = Conditions(STATED, 6)
    found = compared(workload, [named("forgetful"), oracle(Future())], Pool(120_000), conditions=conditions)
    forgetful, best = (one.figures for one in found)
    assert forgetful.regret == pytest.approx(forgetful.jct_mean_s / best.jct_mean_s - 1)
    assert forgetful.jct_mean_s > best.jct_mean_s
    assert best.regret == 0
    # It is run for that also where nobody asked for it.
    (alone,) = compared(workload, [named("forgetful")], Pool(120_000), conditions=conditions)
    assert alone.figures == forgetful


def test_figures_of_a_load_and_a_lane_are_plain() -> None:
    assert Load(1, 1, 0.0, 0, 0.5).fits(100) == 0.0
    assert Lane("a", [Stretch("held", 0.0, 1.0)]).stretches[0].ended == 1.0


def plain(effects: Sequence[Effect]) -> list[dict[str, Any]]:
    """Effects without their times."""
    kept = (effect for effect in effects if type(effect).__name__ != "Wake")
    return [{key: value for key, value in encode(each).items() if key != "until"} for each in kept]


@pytest.mark.parametrize("policy", ["sostenuto", "forgetful"])
def test_effects_are_those_of_the_live_loop_on_the_same_programs(
    policy: str, tiny: Pair, stages: Callable[..., Stage], tmp_path: Path
) -> None:
    """Programs in turns, in a pool for two of them: what the journal has is what the simulator gets."""
    path = tmp_path / "journal.jsonl"
    stage = stages(tiny.ours, pool=128, chunk=16, journal=path, policy=policy)
    contexts = {name: [*draw(12), *draw(20, seed=seed)] for seed, name in enumerate("abc")}
    for turn in range(3):
        for name, context in contexts.items():
            program = ProgramId(f"default/{name}")
            tools = ("search",) if turn < 2 else ()
            told = stage.say(context, program, max_tokens=5, tools_called=lambda text, reason, tools=tools: tools)
            if tools:
                stage.loop.tell(ToolStarted(program, "search", f"{name}{turn}"))
                stage.loop.tell(ToolEnded(program, "search", f"{name}{turn}"))
            else:
                stage.loop.tell(Closed(program))
            context += [*told.tokens, 7, 8, 9]
    stage.loop.close()

    records = [json.loads(line) for line in path.read_text().splitlines()][1:]
    live = [(record["event"]["kind"], record["effects"]) for record in records]
    replayed: list[tuple[str, list[dict[str, Any]]]] = []

    def watch(event: Event, now: float, effects: Sequence[Effect]) -> None:
        if not isinstance(event, Tick):
            replayed.append((type(event).__name__, json.loads(json.dumps(plain(effects)))))

    recorded = open_trace(str(path))
    assert [(one.tenant, one.name, len(one.calls)) for one in recorded.sessions] == [("default", n, 3) for n in "abc"]
    # They come a second after each other, and the device is quick: each turn is over before the next, as it was.
    paced = [
        replace(one, at=float(number), calls=tuple(replace(call, pause=3.0) for call in one.calls))
        for number, one in enumerate(recorded.sessions)
    ]
    quick = replace(STATED, step_s=1e-4, token_s=0, pair_s=0, turn_s=0, seen_s=0, chunk=16)
    workload = replace(recorded, sessions=paced)
    simulate(
        kernel_for(named(policy), Pool(128, page=8), 1, Conditions(quick)), workload, Conditions(quick), watch=watch
    )
    started = sum(kind == "Arrived" for kind, _ in live)
    assert started == 9
    effects = [each for _, found in live for each in found if each["kind"] != "Wake"]
    for each in effects:
        each.pop("until", None)
    assert [each for _, found in replayed for each in found] == effects
    assert {each["kind"] for each in effects} >= {"Start", "Grow"}
    # Steps that are alike are told as one, and live the tools were back at once.
    others = ("Tick", "Stepped", "ToolStarted", "ToolEnded")
    kinds = [kind for kind, _ in live if kind not in others]
    assert [kind for kind, _ in replayed if kind not in others] == kinds


def test_a_policy_is_a_value_that_the_pool_is_made_for() -> None:
    pool = Pool(64 * 16 * 3, host_tokens=64 * 16 * 5)
    kernel = kernel_for(Policy(name="mine"), pool, 64, Conditions(STATED, workers=3))
    assert (kernel.setting.costs, kernel.setting.workers) == (STATED.scaled(64), 3)
    assert (kernel.ledger.room, kernel.ledger.page) == (3, 16)
    assert kernel.moves.elsewhere.rooms == {"host": 5}
