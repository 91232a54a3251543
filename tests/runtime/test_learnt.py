"""A policy of one's own reaches the engine and its journal; what was learnt of tools outlives the process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sostenuto.runtime.below import kernel
from sostenuto.runtime.cli import main
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.journal import replay
from sostenuto.runtime.learnt import load_policy, read_forecasts, write_forecasts
from sostenuto.runtime.loop import Loop
from sostenuto.runtime.request import Request
from sostenuto.runtime.sampling import Sampling
from sostenuto.scheduler import TYPICAL, Forecasts, NotTheSame, Setting
from sostenuto.tests.runtime.conftest import Pair

OWN = Path(__file__).parents[2] / "examples" / "own_policy.py"


def test_a_policy_is_found_by_its_name_or_in_a_file() -> None:
    assert load_policy("mars").name == "mars"
    assert load_policy(f"{OWN}:MINE").name == "mine"
    with pytest.raises(ValueError, match="there is no file"):
        load_policy("nowhere.py:MINE")
    with pytest.raises(ValueError, match="has no policy main: found function"):
        load_policy(f"{OWN}:main")
    with pytest.raises(ValueError, match="there is no policy"):
        load_policy("nothing")


def test_a_policy_of_ones_own_runs_the_engine_and_its_journal_replays_with_it(tiny: Pair, tmp_path: Path) -> None:
    path, mine = tmp_path / "journal.jsonl", load_policy(f"{OWN}:MINE")
    with Loop(TorchEngine(tiny.ours, pool_tokens=256), mine, journal=path) as loop:
        tickets = [
            loop.submit(Request(f"p{number}", "main", tuple(range(number, number + 20)), Sampling(max_tokens=4)))
            for number in range(3)
        ]
        for ticket in tickets:
            list(ticket)
    again, events = replay(path, mine)
    assert (again.policy.name, events >= 8) == ("mine", True)
    with pytest.raises(Exception, match="there is no policy 'mine'"):
        replay(path)
    assert main(["replay", str(path), "--policy", f"{OWN}:MINE"]) == 0


def test_a_journal_says_what_its_schedule_was_told(tiny: Pair, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    setting = Setting(workers=3, shares={"a": 2.0}, token_target_s=0.2)
    setting.forecasts.observe("bash", 3.0)
    with Loop(TorchEngine(tiny.ours, pool_tokens=256), load_policy("sostenuto"), journal=path, setting=setting) as loop:
        list(loop.submit(Request("p", "main", tuple(range(20)), Sampling(max_tokens=4))))
    assert replay(path)[0].setting.data() == setting.data()
    lines = path.read_text(encoding="utf-8").splitlines()
    head = json.loads(lines[0])
    head["room"] = 1
    path.write_text("\n".join([json.dumps(head), *lines[1:]]) + "\n", encoding="utf-8")
    with pytest.raises(NotTheSame):
        replay(path)


def test_the_engine_is_given_the_pace_of_its_setting_and_learns_how_long_steps_take(tiny: Pair) -> None:
    engine = TorchEngine(tiny.ours, pool_tokens=256, chunk=64)
    kernel(engine, load_policy("sostenuto"), setting=Setting(costs=TYPICAL, token_target_s=0.2))
    assert (engine.pace.target_s, engine.pace.most) == (0.2, 64)
    before = repr(engine.pace)
    with Loop(engine, load_policy("sostenuto"), setting=Setting(token_target_s=0.2)) as loop:
        list(loop.submit(Request("p", "main", tuple(range(40)), Sampling(max_tokens=4))))
    assert repr(engine.pace) != before


def test_what_was_learnt_is_there_in_the_next_run_and_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "forecasts.json"
    assert len(read_forecasts(path)) == 0
    forecasts = Forecasts()
    for _ in range(40):
        forecasts.observe("bash", 3.0, "make")
    write_forecasts(path, forecasts)
    assert read_forecasts(path).data() == forecasts.data()
    assert [each.name for each in tmp_path.iterdir()] == ["forecasts.json"]
    for text, said in (("no json", "is no file of forecasts"), ('{"format": 9}', "of format 9"), ("[]", "no file of")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=said):
            read_forecasts(path)


@pytest.mark.parametrize("take", ["any", "tools", "bins", "means", "count"])
@pytest.mark.parametrize(
    "put",
    [None, [], -1, "x", {"bash": None}, {"0": float("inf")}, {"0": 10**400}, float("inf"), [1.0, float("nan"), 1.0]],
)
def test_a_damaged_file_says_what_is_wrong_and_what_to_do(tmp_path: Path, take: str, put: object) -> None:
    forecasts, path = Forecasts(), tmp_path / "forecasts.json"
    forecasts.observe("bash", 3.0, "make")
    for gone in (True, False):
        write_forecasts(path, forecasts)
        data = json.loads(path.read_text(encoding="utf-8"))
        inner = data if take in data else data["tools"]["bash"]["all"]
        if gone:
            del inner[take]
        else:
            inner[take] = put
        path.write_text(json.dumps(data), encoding="utf-8")
        with pytest.raises(ValueError, match=r"forecasts.json: .*: name another file, or one that is not there yet"):
            read_forecasts(path)


def test_serving_refuses_settings_that_make_no_sense_before_a_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "costs.json").write_text("{}", encoding="utf-8")
    for wrong, said in (
        (["--share", "a"], "expected TENANT=N"),
        (["--share", "a=0"], "the share of a"),
        (["--policy", "fifo"], "there is no policy 'fifo'"),
        (["--costs", str(tmp_path / "costs.json")], "is no file of costs"),
        (["--token-ms", "-1"], "token_target_s: found"),
    ):
        assert main(["serve", *wrong]) == 1
        assert said in capsys.readouterr().err
