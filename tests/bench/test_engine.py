"""The benchmark of engines without its peers: what it asks for, what it keeps, how it reckons and judges."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from sostenuto.bench import engine_measures as measures
from sostenuto.bench.engine import chosen, main, wanted
from sostenuto.bench.engine_agents import Agents, peak, plain
from sostenuto.bench.engine_found import Found, late, spread
from sostenuto.bench.engine_goals import Match, compared, goals
from sostenuto.bench.engine_peers import BOUND, DEFAULT, EXACT, FAST, NATIVE, Peer, Place, Process, missing
from sostenuto.bench.engine_plan import CONTEXTS, SAID, Act, Cell, full, quick
from sostenuto.bench.engine_speaking import Heard, prompt
from sostenuto.bench.engine_state import State, source
from sostenuto.bench.engine_tables import inserted, page
from sostenuto.scheduler.simulator import Call, Session
from sostenuto.tests.bench import scripted
from sostenuto.tests.bench.scripted import Scripted

AGENTS = [Agents("agents 16 at 1/4", "sessions.json", 4096, 2.0)]
VERSIONS = {"exact": "1", "vllm": "2"}
CELL = Cell("prefill 1k", "prefill", {"tokens": 1024}, (EXACT, BOUND))


def record(cell: str, peer: str, value: float, number: int = 0, **more: Any) -> dict[str, Any]:
    return {"cell": cell, "peer": peer, "round": number, "value": value, "act": "short", "peak": 2**30, **more}


# -- what is kept


def test_a_run_that_was_ended_goes_on_where_it_stopped(tmp_path: Path) -> None:
    act = Act("short", 4096, 2, [CELL])
    state = State(tmp_path / "deep" / "state.jsonl", "here")
    assert [(number, peer.name) for number, _, peer in wanted(act, state, VERSIONS)] == [
        (0, "exact"),
        (0, "vllm"),
        (1, "vllm"),
        (1, "exact"),
    ]
    state.add(("prefill 1k", "exact", 0), "1", {"value": 5.0})
    state.add(("prefill 1k", "vllm", 1), "2", {"value": 6.0})
    with (tmp_path / "deep" / "state.jsonl").open("a") as out:
        out.write('{"cell": "prefill 1k", "pe')  # it was ended while it wrote
    again = State(tmp_path / "deep" / "state.jsonl", "here")
    assert [(number, peer.name) for number, _, peer in wanted(act, again, VERSIONS)] == [(0, "vllm"), (1, "exact")]
    assert [one["value"] for one in again.of(VERSIONS)] == [5.0, 6.0]


def test_what_another_machine_or_another_version_measured_does_not_count(tmp_path: Path) -> None:
    state = State(tmp_path / "state.jsonl", "here")
    state.add(("prefill 1k", "exact", 0), "1", {"value": 5.0})
    assert not State(tmp_path / "state.jsonl", "there").of(VERSIONS)
    assert not state.has(("prefill 1k", "exact", 0), "1b")
    assert not state.of({"exact": "1b"})
    assert state.has(("prefill 1k", "exact", 0), "1")


def test_a_measurement_that_follows_a_torn_line_is_not_lost(tmp_path: Path) -> None:
    file = tmp_path / "state.jsonl"
    file.write_text('{"cell": "prefi')
    State(file, "here").add(("prefill 1k", "exact", 0), "1", {"value": 5.0})
    assert State(file, "here").has(("prefill 1k", "exact", 0), "1")


def test_code_that_is_changed_has_another_name(tmp_path: Path) -> None:
    (tmp_path / "runtime").mkdir()
    file = tmp_path / "runtime" / "a.py"
    file.write_text("1")
    before = source(tmp_path)
    assert source(tmp_path) == before
    file.write_text("2")
    assert source(tmp_path) != before


def test_a_peer_that_is_not_here_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_VENV", str(tmp_path / "nowhere"))
    assert "make bench-engine" in (missing(BOUND) or "")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    monkeypatch.setenv("LLAMA_VENV", str(tmp_path))
    monkeypatch.setenv("LLAMA_SERVER", str(tmp_path / "nowhere"))
    assert "make llama-native" in (missing(NATIVE) or "")
    assert not list(wanted(Act("short", 4096, 2, [CELL]), State(tmp_path / "state.jsonl", "here"), {}))


# -- what is asked for


def test_the_whole_run_measures_what_was_promised() -> None:
    acts = full(AGENTS)
    cells = {cell.name: cell for act in acts for cell in act.cells}
    assert {f"prefill {context}" for context in ("1k", "4k", "8k")} <= cells.keys()
    assert {f"decode {batch} x {context}" for batch in (1, 2, 4, 8, 16) for context in CONTEXTS} <= cells.keys()
    assert {"resume 4k", "agents 16 at 1/4", "bandwidth", "gemm", "linear 32k", "start anew"} <= cells.keys()
    for name, cell in cells.items():
        if name.startswith(("prefill", "decode")):
            assert {EXACT, BOUND} <= set(cell.peers), name
        if name.startswith("decode 1 x"):
            assert {FAST, NATIVE, DEFAULT} <= set(cell.peers), name


def test_every_batch_fits_into_the_pool_of_its_act_and_no_cell_is_measured_twice() -> None:
    acts = full(AGENTS)
    for act in acts:
        for cell in act.cells:
            if cell.what == "decode":
                assert cell.given["batch"] * (cell.given["context"] + SAID) <= act.pool_tokens, cell.name
    names = [cell.name for act in acts for cell in act.cells]
    assert len(names) == len(set(names))


def test_the_short_run_is_a_part_of_the_whole_one_so_that_nothing_is_measured_twice() -> None:
    whole = {cell.name: cell for act in full(AGENTS) for cell in act.cells}
    for act in quick(AGENTS):
        for cell in act.cells:
            assert whole[cell.name].given == cell.given
            assert set(cell.peers) <= set(whole[cell.name].peers)


def test_cells_peers_and_rounds_can_be_chosen() -> None:
    asked = argparse.Namespace(only=["decode 1 x", "bytes"], peers=["exact", "vllm"], rounds=7)
    (act,) = chosen(quick(AGENTS), asked)
    assert [cell.name for cell in act.cells] == ["decode 1 x 128", "decode 1 x 4k"]
    assert {peer for cell in act.cells for peer in cell.peers} == {EXACT, BOUND}
    assert act.rounds == 7


def test_nothing_runs_when_only_the_tables_are_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VENV", sys.prefix)
    monkeypatch.setenv("VLLM_VENV", str(tmp_path))
    main(["--quick", "--dry", "--folder", str(tmp_path / "state"), "--out", str(tmp_path / "engine.md")])
    text = (tmp_path / "engine.md").read_text()
    assert "# The embedded engine beside its peers" in text
    assert "not measured" in text
    assert "limits: 13 measurements" in capsys.readouterr().out
    assert not (tmp_path / "state" / "state.jsonl").exists()


# -- agents


def sessions(count: int) -> list[Session]:
    """All begin with the same names."""
    return [
        Session(f"s{at}", (Call(0, (1, 2, 10 + at), (3,), 1, ("tool",), 0.5), Call(4, (20 + at,), (4, 5), 2)))
        for at in range(count)
    ]


def test_sessions_that_come_again_share_only_what_all_share() -> None:
    first, second, again, _ = plain(sessions(2), 4, 100, seed=0)
    begin = first["calls"][0]["add"]
    assert begin[:2] == second["calls"][0]["add"][:2] == again["calls"][0]["add"][:2]
    assert len({each["calls"][0]["add"][2] for each in (first, second, again)}) == 3
    assert [call["say"] for call in first["calls"]] == [1, 2]
    assert [call["pause"] for call in first["calls"]] == [0.5, 0.0]
    assert peak(first) == 4 + 1 + 2
    assert plain(sessions(2), 4, 100, seed=0)[0] == first


def test_what_is_longer_than_the_model_takes_is_left_out_with_all_that_follows() -> None:
    (plan,) = plain(sessions(1), 1, 6, seed=0)
    assert len(plan["calls"]) == 1
    assert not plain(sessions(1), 1, 2, seed=0)


def test_an_agents_next_prompt_holds_what_was_said_and_what_is_computed_twice_is_counted(tmp_path: Path) -> None:
    calls = [
        {"keep": 0, "add": [1, 2, 3], "say": 2, "pause": 0.0},
        {"keep": 5, "add": [4], "say": 1, "pause": 0.0},
        {"keep": 2, "add": [9], "say": 1, "pause": 0.0},
    ]
    file = tmp_path / "sessions.json"
    file.write_text(json.dumps({"sessions": [{"name": "a", "at": 0.0, "calls": calls}]}))
    speaker = Scripted(cached=1)
    found = asyncio.run(measures.agents(speaker, sessions=str(file), pressure=2.5))
    assert speaker.asked == [[1, 2, 3], [1, 2, 3, 7, 7, 4], [1, 2, 9]]
    assert speaker.back == ["a", "a"]
    assert (found["prompt"], found["said"], found["reused"]) == (12, 4, 3)
    assert found["recomputed"] == 3 + 0  # of five known tokens one is never computed before and one was found
    assert (len(found["jcts"]), len(found["firsts"]), found["pressure"]) == (1, 2, 2.5)


# -- measuring


def test_only_the_time_in_which_all_of_a_batch_speak_is_counted() -> None:
    speaker = Scripted([[1.0, 2.0, 3.0, 4.0], [3.0, 4.0, 5.0, 6.0]])
    found = asyncio.run(measures.decode(speaker, batch=2, context=8, tokens=4, seed="x"))
    assert found["value"] == 2.0  # a token each in the one second from 3 to 4
    assert found["steps_ms"] == [1000.0, 1000.0]
    assert (found["window_s"], found["forward_s"]) == (1.0, 0.75)
    assert speaker.asked[0] == speaker.asked[2] != speaker.asked[1]


def test_answers_that_hardly_meet_are_no_measurement() -> None:
    speaker = Scripted([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    with pytest.raises(RuntimeError, match="of 2 answers of 4 tokens only"):
        asyncio.run(measures.decode(speaker, batch=2, context=8, tokens=4, seed="x"))


def test_tokens_that_come_several_at_a_time_are_counted_each() -> None:
    heard = Heard(times=[1.0, 2.0, 4.0], counts=[1, 2, 6])
    assert heard.said(1.0, 4.0) == 5
    assert measures.steps([heard], 1.0, 4.0) == [1000.0, 500.0]


def test_prompts_are_the_same_for_everybody_and_no_two_are_alike() -> None:
    assert prompt("a", 50) == prompt("a", 50)[:50]
    assert prompt("a", 50)[:32] == prompt("a", 32)
    assert prompt("a", 50) != prompt("b", 50)


# -- judging


def test_ratios_are_taken_round_by_round() -> None:
    records = [record("d", "exact", 10, 0), record("d", "exact", 30, 1), record("d", "vllm", 10, 1)]
    found = Found(records)
    assert found.ratios("d", "exact", "vllm") == [3.0]
    assert found.middle("d", "exact") == 20
    assert spread([3.0, 1.0, 2.0]) == "1.0 / 2.0 / 3.0 (3)"
    assert spread([]) == "-"
    assert late(list(map(float, range(200)))) == 198


def test_a_goal_is_reached_only_in_every_cell() -> None:
    records = [
        record(cell, peer, value)
        for cell, peer, value in (
            *(("decode 1 x 128", "fast", 30), ("decode 1 x 128", "vllm", 10)),
            *(("decode 1 x 4k", "fast", 15), ("decode 1 x 4k", "vllm", 10)),
        )
    ]
    one = compared(Found(records[:2]), Match("fast", "vllm", 2.0, ("decode 1 x",)))
    both = compared(Found(records), Match("fast", "vllm", 2.0, ("decode 1 x",)))
    none = compared(Found(records), Match("fast", "llama.cpp", 1.0, ("decode 1 x",)))
    assert (one.reached, both.reached, none.reached) == (True, False, None)
    assert "below: decode 1 x 4k 1.50" in both.found


def everything() -> list[dict[str, Any]]:
    steps: dict[str, Any] = {"window_s": 1.0, "forward_s": 0.97, "steps_ms": [1.0, 2.0]}
    jobs: dict[str, Any] = {
        "jcts": [1.0, 3.0],
        "firsts": [0.1],
        "prompt": 9,
        "reused": 5,
        "recomputed": 2,
        "pressure": 2.0,
    }
    profiled: dict[str, Any] = {"top": {"product": 0.5}, "all_s": 1.0, "products_flops": 80.0}
    linear = {"1k": 1.0, "2k": 2.0, "4k": 4.0, "8k": 8.0, "16k": 16.0, "32k": 40.0}
    return [
        record("bandwidth", "machine", 1000.0),
        record("gemm", "machine", 100.0, ours=90.0),
        record("bytes exact", "machine", 90.0, of_a_token=0.0),
        record("profile exact prefill 1024", "machine", 1.0, **profiled),
        *(record(f"linear {name}", "machine", value) for name, value in linear.items()),
        *(record(f"decode {batch} x 128", "exact", 10.0, **steps) for batch in (1, 8)),
        record("decode 1 x 128", "vllm", 8.0, steps_ms=[1.0]),
        record("agents 16 at 1/4", "exact", 2.0, **jobs),
        record("agents 16 at 1/4", "vllm", 3.0, **jobs),
        record("resume 4k", "exact", 0.1, cached=4000, of=4128),
        record("resume 4k", "generate", 3.0, cached=None, of=4128),
        record("start again", "exact", 4.0),
    ]


def test_goals_say_what_is_reached_missed_and_not_measured() -> None:
    judged = {goal.name: (goal.reached, goal.found) for goal in goals(Found(everything()))}
    assert judged["`exact` at batch 1: at least 80 % of the measured bandwidth"] == (True, "90%")
    assert judged["`fast` at batch 1: at least 80 % of the measured bandwidth"] == (None, "")
    assert judged["linear layers of prefill: at least 70 % of the measured rate of products"] == (True, "80%")
    assert judged["host overhead of a decode step at batch 8 under 5 %"] == (True, "3.0%")
    (agents,) = (found for name, found in judged.items() if name.startswith("agents 16"))
    assert agents[0] is False  # half again as soon, and twice was wanted under pressure
    (bent,) = (found for name, found in judged.items() if name.startswith("time of a token"))
    assert bent[0] is False
    assert bent[1].endswith("slope to 32k 1.51 x that before")


def test_the_page_shows_every_table_with_its_figures() -> None:
    text = page(everything(), {"date": "today", "machine": "here"})
    for heading in ("Goals", "Speaking", "First token after a tool", "Agents", "The machine", "Host overhead", "Start"):
        assert f"## {heading}" in text
    assert "- machine: here" in text
    assert "| agents 16 at 1/4 | `vllm` | 2.0 | 3.0 | 0.10 | 9 | 5 | 2 | 1.50 / 1.50 / 1.50 (1) |" in text
    assert "| resume 4k | `generate` | 3,000.0 / 3,000.0 / 3,000.0 (1) | - |" in text
    assert "| `product` | 50.0% |" in text


def test_tables_take_the_place_of_those_before() -> None:
    text = page(everything(), {"machine": "here"})
    document = "# Engine\n\n<!-- tables -->\n\nnone yet\n\n<!-- /tables -->\nthe end\n"
    once = inserted(document, text)
    assert "### Goals" in once
    assert "none yet" not in once
    assert once.startswith("# Engine\n\n<!-- tables -->\n\n- machine: here")
    assert once.endswith("<!-- /tables -->\nthe end\n")
    assert inserted(once, text) == once
    with pytest.raises(ValueError, match="found no place for the tables"):
        inserted("# Engine", text)


# -- processes


def test_a_process_stands_still_unless_it_is_asked_and_is_gone_when_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VENV", sys.prefix)
    process = Process(Peer("scripted", scripted.__name__, "a script"), Place((0,), "", "", tmp_path), 5)
    try:
        (child,) = (one for one in psutil.Process().children() if scripted.__name__ in one.cmdline())
        found = process.ask("prefill", {"tokens": 8, "seed": "0"})
        assert (found["value"] > 0, found["cached"]) == (True, 5)
        assert process.peak > 0
        assert child.status() == psutil.STATUS_STOPPED
        with pytest.raises(RuntimeError, match=r"scripted, decode .* only \d+ came while all spoke.*scripted\.log"):
            process.ask("decode", {"batch": 2, "context": 8, "tokens": 4, "seed": "0"})
        with pytest.raises(RuntimeError, match=r"scripted gave no answer: see .*scripted\.log"):
            process.ask("nonsense", {})
        assert not process.alive
    finally:
        process.close()
    assert not child.is_running()


def test_no_process_stands_still_for_ever_when_the_driver_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path;"
        "from sostenuto.bench.engine_peers import Peer, Place, Process;"
        f"os.environ['VENV'] = sys.prefix; peer = Peer('scripted', {scripted.__name__!r}, 'a script');"
        f"process = Process(peer, Place((0,), '', '', Path({str(tmp_path)!r})), 5);"
        "print(process._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    driver = subprocess.run([sys.executable, "-P", "-c", code], check=False, stdout=subprocess.PIPE, text=True)
    assert driver.returncode == -signal.SIGKILL
    left = int(driver.stdout)
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(left).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
