"""The demo from the command line, small: what it prints, what it leaves behind, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sostenuto.runtime.cli import main
from sostenuto.runtime.journal import FORMAT
from sostenuto.scheduler import Setting
from sostenuto.tracing import read_otlp_json

from ..babbler import build

OWN = Path(__file__).parents[2] / "examples" / "own_policy.py"


def test_a_small_demo_compares_both_policies_and_leaves_a_trace_and_a_journal_that_replays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(build(tmp_path / "terse", terse=True))
    assert_a_small_demo_tells_all(tmp_path, capsys, "--model", model, under=("--policy", f"{OWN}:MINE"))
    assert '"policy":"mine"' in (tmp_path / "out" / "journal.jsonl").read_text(encoding="utf-8").splitlines()[0]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_does_so_with_the_model_that_comes_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_a_small_demo_tells_all(tmp_path, capsys)


def assert_a_small_demo_tells_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str, under: tuple[str, ...] = ()
) -> None:
    out = tmp_path / "out"
    assert main(["demo", "--agents", "2", "--rounds", "2", "--out", str(out), "--json", *more, *under]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(told) == {"policies", "sweep", "computed_ratio", "trace", "journal"}
    assert set(told["policies"]) == {"sostenuto", "forgetful"}
    for policy in told["policies"].values():
        assert policy["turns"] >= 2
        assert policy["calls_valid"] >= 2
        assert policy["calls_invalid_dispatched"] == 0
        assert policy["reused_tokens"] + policy["computed_tokens"] >= policy["prompt_tokens"]
    assert told["sweep"][-1]["computed_ratio"] == 1.0  # everything fits
    spans = read_otlp_json(Path(told["trace"]))
    runs = [span for span in spans if span.name == "invoke_agent workshop"]
    assert len(runs) == 2
    assert len({span.trace_id for span in runs}) == 2
    assert main(["replay", told["journal"], *under]) == 0
    assert "events gave the same effects" in capsys.readouterr().out


def test_a_replay_that_differs_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = tmp_path / "j.jsonl"
    head = {"format": FORMAT, "policy": "sostenuto", "room": 4, "page": 4, "grows": True, "setting": Setting().data()}
    head |= {"tiers": {}, "groups": {"each": [{"layers": [], "window": None}], "stride": 512}}
    tick = {"at": 0.0, "event": {"kind": "Tick"}, "effects": [{"kind": "Wake", "at": 1.0, "why": "made up"}]}
    journal.write_text(f"{json.dumps(head)}\n{json.dumps(tick)}\n", encoding="utf-8")
    assert main(["replay", str(journal)]) == 1
    assert "line 2: Tick gave []" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--model", "/no/such/model"], "/no/such/model"),
        (["--tasks", "/no/such/tasks.jsonl"], "/no/such/tasks.jsonl"),
        (["--pool-tokens", "8"], "8 tokens"),
        (["--policy", "fifo"], "there is no policy 'fifo'"),
        (["--policy", f"{OWN}:main"], "has no policy main"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    assert main(["demo", "--out", str(tmp_path / "out"), *given]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sostenuto: ")
    assert said in line
