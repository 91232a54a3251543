"""Traces in every form that is read, in small, and what is said of files that are none."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import pytest

from sostenuto.runtime.cli import main
from sostenuto.runtime.traces import MIXES, Arrangement, BadTrace, arranged, open_trace
from sostenuto.runtime.traces.blocks import Blocks, runs_of
from sostenuto.runtime.traces.pauses import PEOPLE, TOOLS
from sostenuto.runtime.traces.texts import pieces
from sostenuto.scheduler.simulator import Session, Workload, script


def written(path: Path, *records: Any) -> str:
    path.write_text("\n".join(json.dumps(each) if not isinstance(each, str) else each for each in records) + "\n")
    return str(path)


def sessions(workload: Workload) -> list[Session]:
    return list(workload.sessions)


def sizes(session: Session) -> list[tuple[int, int, int]]:
    """Of each call: granules kept and added, and tokens said."""
    return [(call.keep, len(call.add), call.out) for call in session.calls]


HEAD = {"session": "s", "block_size": 64, "tool_tokens": 1, "system_tokens": 1, "models": ["m"]}


def test_weka_sessions_have_their_blocks_and_their_real_pauses(tmp_path: Path) -> None:
    first = {"sid": "s", "turn": 0, "t": 0.0, "in": 640, "out": 100, "blk": [[1, 10]], "stop": "tool_use"}
    # Its last block is named anew; what is new begins with the two granules that were said.
    second = {"sid": "s", "turn": 1, "t": 9.0, "in": 960, "out": 64, "blk": [[1, 9], [50, 6]], "after": "tool"}
    second |= {"gap_s": 4.0}
    # Compacted: only the first three blocks are those of before.
    third = {"sid": "s", "turn": 2, "t": 99.0, "in": 320, "out": 1, "blk": [[1, 3], [80, 2]], "after": "user"}
    third |= {"gap_s": 60.0}
    agent = {"sid": "s/agent_1", "turn": 0, "t": 0.0, "in": 128, "out": 9, "blk": [[1, 2]], "parent": "s"}
    workload = open_trace(written(tmp_path / "weka.jsonl", HEAD, first, second, third, agent))
    one, inner = sessions(workload)
    assert (workload.name, workload.granule, workload.timed) == ("weka", 64, False)
    assert sizes(one) == [(0, 10, 100), (12, 3, 64), (3, 2, 1)]
    assert [(call.tools, call.pause) for call in one.calls] == [(("tool",), 4.0), ((), 60.0), ((), 0.0)]
    assert [len(call.say) for call in one.calls] == [2, 1, 1]
    assert (inner.name, inner.calls[0].add) == ("s/agent_1", one.calls[0].add[:2])
    assert len(workload.notes) == 2


def test_blocks_are_joined_and_cut_into_granules_that_keep_what_prompts_share() -> None:
    one, other = Blocks(((1, 8),), 64, 64, tokens=512), Blocks(((1, 5), (20, 3)), 64, 64, tokens=512)
    assert (len(one), one.common(other), other.after(4)) == (8, 5, (5, 20, 21, 22))
    joined, beside = Blocks(((1, 8),), 64, 128, tokens=512), Blocks(((1, 5), (20, 3)), 64, 128, tokens=512)
    assert (len(joined), joined.common(beside)) == (4, 2)
    assert (joined.after(0), beside.after(2)) == ((2, 4, 6, 8), (20, 22))
    parts = Blocks(((3, 2),), 512, 128, tokens=900)
    assert (len(parts), parts.after(0), parts.after(5)) == (7, (12, 13, 14, 15, 16, 17, 18), (17, 18))
    assert runs_of([4, 5, 6, 9, 10, 2]) == ((4, 3), (9, 2), (2, 1))


def test_original_weka_files_are_read_one_or_a_folder_of_them(tmp_path: Path) -> None:
    def request(t: float, blocks: int, **rest: Any) -> dict[str, Any]:
        told = {"t": t, "type": "n", "in": blocks * 64, "out": 70, "hash_ids": list(range(1, blocks + 1))}
        return told | {"input_types": ["text"], "output_types": ["text"], "stop": ""} | rest

    inner = {"type": "subagent", "t": 3.0, "requests": [request(0.0, 2)]}
    calls = [
        request(0.0, 4, type="s"),
        request(2.0, 4, api_time=1.5),  # the same, not streamed
        inner,
        request(10.0, 8, input_types=["tool_result"], think_time=2.5),
        request(30.0, 9, input_types=["text"]),
    ]
    file = tmp_path / "trace_1.json"
    file.write_text(json.dumps({"id": "t1", "block_size": 64, "requests": calls}))
    for name in (str(file), str(tmp_path)):
        agent, one = sessions(open_trace(name))
        assert (agent.name, one.name) == ("t1/agent_1", "t1")
        assert sizes(one) == [(0, 4, 70), (6, 2, 70), (8, 1, 70)]
        # 2.5 s as told; where nothing is told the time between two requests, less that of the answer.
        assert [(call.tools, call.pause) for call in one.calls[:2]] == [(("tool",), 2.5), ((), 20.0)]


@pytest.mark.parametrize("original", [True, False])
def test_mooncake_requests_that_extend_another_are_its_next_call(tmp_path: Path, original: bool) -> None:
    def request(at: int, tokens: int, *runs: list[int]) -> dict[str, Any]:
        ids = [one for first, count in runs for one in range(first, first + count)]
        if original:
            return {"timestamp": at, "input_length": tokens, "output_length": 130, "hash_ids": ids}
        return {"i": at, "t_ms": at, "in": tokens, "out": 130, "blk": list(runs)}

    requests = [
        request(1000, 1500, [0, 1], [10, 2]),
        request(2000, 900, [0, 1], [20, 1]),
        request(5000, 2560, [0, 1], [10, 1], [30, 3]),
    ]
    workload = open_trace(written(tmp_path / "m.jsonl", *requests))
    one, other = sessions(workload)
    assert (workload.granule, workload.timed) == (128, True)
    assert (one.at, other.at) == (0.0, 1.0)
    assert sizes(one) == [(0, 11, 130), (13, 7, 130)]
    assert sizes(other) == [(0, 7, 130)]
    assert one.calls[0].pause > 0
    assert one.calls[0].add[:4] == other.calls[0].add[:4]  # ids are everybody's
    assert "modelled" in workload.notes[1]
    assert sessions(open_trace(str(tmp_path / "m.jsonl"), seed=1))[0].calls[0].pause != one.calls[0].pause


def test_texts_of_lmcache_get_their_replies_back_and_lose_the_time_of_the_model(tmp_path: Path) -> None:
    prompt = "".join(f"{number:04d}" for number in range(64))
    rows = [
        {"sid": "a", "turn": 0, "t": 0.0, "base": -1, "keep": 0, "add": prompt, "out": "r" * 128},
        {"sid": "a", "turn": 1, "t": 2.0, "base": 0, "keep": 256, "add": "x" * 64, "out": "s" * 8},
        {"sid": "a", "turn": 2, "t": 2.1, "base": 1, "keep": 100, "add": "y" * 64, "out": "s" * 8},
    ]
    (one,) = sessions(open_trace(written(tmp_path / "l.jsonl", *rows)))
    assert [call.out for call in one.calls] == [32, 2, 2]
    assert sizes(one)[:2] == [(0, 4, 32), (6, 1, 2)]
    assert one.calls[2].keep == 1  # a hundred letters are one granule of 64, and a part
    assert [call.pause for call in one.calls[:2]] == [pytest.approx(2 - 32 / 150), pytest.approx(0.1 - 2 / 150)]
    assert pieces("", 16) == (0,)


def test_bfcl_tasks_become_calls_and_answers(tmp_path: Path) -> None:
    row = {"sid": "b", "classes": ["Files"], "turns": [["do it"], ["again"]], "calls": [["cd('x')", "ls()"], []]}
    workload = open_trace(written(tmp_path / "b.jsonl", row))
    (one,) = sessions(workload)
    assert [call.tools for call in one.calls] == [("cd",), ("ls",), (), ()]
    assert all(call.pause > 0 for call in one.calls[:3])
    assert one.calls[3].pause == 0
    assert one.calls[0].keep == 0
    assert len(one.calls[0].add) == pytest.approx(1500 / 16, abs=1)
    assert all(call.keep > 90 for call in one.calls[1:])


def test_tracelab_tables_and_examples_are_read(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(
        "session_id,arrival_time,round_idx,prefix_len,input_len,output_len,tool_wait_after_ms\n"
        "b,500,1,160,32,16,0\nb,500,0,0,160,16,250\na,0,0,0,64,5,100\n"
    )
    workload = open_trace(str(table))
    a, b = sessions(workload)
    assert workload.timed
    assert (a.name, b.at) == ("a", 0.5)
    assert sizes(b) == [(0, 10, 16), (11, 1, 16)]
    assert [(call.tools, call.pause) for call in b.calls] == [(("tool",), 0.25), ((), 0.0)]
    plain = table.with_name("u.csv")
    plain.write_text("id,input_len,output_len,arrival_time,round_idx,tool_wait_after_ms,prefix_len\n7,16,1,0,0,,0\n")
    assert [one.name for one in sessions(open_trace(str(plain)))] == ["7"]
    tools = [{"name": "Bash", "wall_ms": 860}, {"name": "Search", "wall_ms": 1900}]
    rows = [
        {"sid": "c", "turn": 0, "in": 320, "cached": 160, "out": 16, "events": [], "tools": tools},
        {"sid": "c", "turn": 1, "in": 640, "cached": 320, "out": 16, "events": [], "tools": []},
    ]
    (c,) = sessions(open_trace(written(tmp_path / "e.jsonl", *rows)))
    assert sizes(c) == [(0, 20, 16), (21, 19, 16)]
    assert (c.calls[0].tools, c.calls[0].pause) == (("Bash", "Search"), 1.9)


def test_commands_and_requests_are_read(tmp_path: Path) -> None:
    row = {"sid": "w", "turn": 0, "cmd": "ls -F", "obs_chars": 640, "exec_s": 0.25}
    (one,) = sessions(open_trace(written(tmp_path / "w.jsonl", row)))
    assert [(call.tools, call.pause) for call in one.calls] == [(("ls",), 0.25), ((), 0.0)]
    packed = tmp_path / "a.csv.gz"
    with gzip.open(packed, "wt") as file:
        file.write("t_s,in,out\n0.5,160,7\n0.1,32,1\n")
    workload = open_trace(str(packed))
    assert [(one.at, sizes(one)) for one in sessions(workload)] == [(0.1, [(0, 2, 1)]), (0.5, [(0, 10, 7)])]


BAD = [
    ("", r"is empty"),
    ("nonsense", r"line 1: no known form"),
    ('{"a": 1}', r"line 1: no known form"),
    (json.dumps(HEAD) + "\n{", r"line 2 is no JSON"),
    (json.dumps(HEAD) + "\n[1]", r"line 2: expected an object, found list"),
    (
        json.dumps(HEAD) + '\n{"sid": "s", "in": 0, "out": 1, "blk": []}',
        r"line 2: in: found 0, expected a whole number",
    ),
    (json.dumps(HEAD) + '\n{"sid": "s", "in": 9, "out": "x", "blk": [[1, 1]]}', r"line 2: out: found 'x', expected"),
    (json.dumps(HEAD) + '\n{"sid": "s", "in": 9, "out": 1, "blk": [[1]]}', r"line 2: blk: .* expected pairs"),
    (json.dumps(HEAD) + '\n{"sid": 3, "in": 9, "out": 1, "blk": []}', r"line 2: sid: found 3, expected a text"),
    (json.dumps(HEAD), r"there is no session in it"),
    ('{"timestamp": -1, "input_length": 1, "output_length": 1, "hash_ids": []}', r"line 1: timestamp: found -1"),
    ('{"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": ["a"]}', r"line 1: hash_ids: found"),
    ("t_s,in,out\n0.1,5,x", r"line 2: out: found 'x', expected a number"),
    ("round_idx,prefix_len,input_len,session_id\n0,0,1,s", r"line 2: output_len: found nothing"),
    ('{"sid": "a", "turn": 0, "t": 0, "base": 0, "keep": 0, "add": "", "out": ""}', r"line 1: base: found 0, expected"),
    ('{"format": 1, "policy": "p", "room": 1}\n{"at": 1}', r"line 2: event: found nothing"),
    ('{"format": 1, "policy": "p", "room": 1}\n{"at": 1, "event": {"kind": "Odd"}}', r"line 2: no event can be read"),
    ('{"requests": [3]}', r"line 1: request 1: expected an object"),
]


@pytest.mark.parametrize(("text", "told"), BAD, ids=range(len(BAD)))
def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "bad"
    file.write_text(text)
    with pytest.raises(BadTrace, match=told):
        open_trace(str(file))


def test_a_broken_archive_and_a_missing_file_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = gzip.compress((json.dumps(HEAD) + "\n").encode() * 2000, mtime=0)
    file = tmp_path / "cut.jsonl.gz"
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadTrace, match=r"cut\.jsonl\.gz, line \d+ cannot be read .*is the file whole"):
        open_trace(str(file))
    assert main(["simulate", "--trace", str(tmp_path / "none")]) == 1
    assert "there is no trace" in capsys.readouterr().err


def test_generated_sessions_are_those_of_their_seed_and_have_the_published_distributions() -> None:
    def drawn(seed: int) -> list[Session]:
        return sessions(open_trace("generated:coding:40", seed=seed))

    assert drawn(3) == drawn(3) != drawn(4)
    calls = [call for one in sessions(open_trace("generated:coding:200")) for call in one.calls[1:]]
    kept = [call for call in calls if call.keep > 42_000 // 64]
    assert median(len(call.add) * 64 for call in kept) == pytest.approx(4000, rel=0.1)
    assert median(call.out for call in calls) == pytest.approx(800, rel=0.1)
    assert sum(not call.tools for call in calls) / len(calls) == pytest.approx(0.3, abs=0.05)
    one, other = sessions(open_trace("generated:coding:2"))
    assert one.calls[0].add[:500] == other.calls[0].add[:500]  # the first layer is everybody's
    assert set(MIXES) == {"coding", "shell", "claude", "codex"}


def test_a_day_of_sessions_begins_over_the_day() -> None:
    workload = open_trace("generated:shell:300:day")
    begins = [one.at for one in sessions(workload)]
    assert workload.timed
    assert begins == sorted(begins)
    assert begins[-1] == pytest.approx(86_400, rel=0.15)


@pytest.mark.parametrize("name", ["generated:none", "generated:shell:x", "generated:shell:5:week"])
def test_an_unknown_mix_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"generated:|choose one of"):
        open_trace(name)


def test_modelled_pauses_have_the_published_quantiles() -> None:
    random = Random(0)

    def quantiles(name: str) -> tuple[float, float, float]:
        found = sorted(TOOLS[name](random) for _ in range(20_000))
        over = sum(each > 60 for each in found) / len(found)
        return found[10_000], found[18_000], over

    assert list(quantiles("shell")[:2]) == pytest.approx([0.24, 0.79], rel=0.05)
    assert quantiles("agentic")[0] == pytest.approx(2.0, rel=0.05)
    for name, middle, over in (("claude", 0.129, 0.049), ("codex", 0.626, 0.031)):
        found = quantiles(name)
        assert found[0] == pytest.approx(middle, rel=0.25)
        assert found[2] == pytest.approx(over, rel=0.15)
    people = sorted(PEOPLE["proxied"](random) for _ in range(20_000))
    assert [people[10_000], people[18_000]] == pytest.approx([122, 1414], rel=0.1)


def test_an_arrangement_orders_scales_and_assigns(tmp_path: Path) -> None:
    rows = [{"sid": f"s{n}", "turn": 0, "in": 640, "out": 130, "blk": [[1, 10]]} for n in range(8)]
    later = [row | {"turn": 1, "after": "tool", "gap_s": 8.0, "blk": [[1, 12]], "in": 768} for row in rows]
    trace = open_trace(written(tmp_path / "w.jsonl", HEAD, *rows, *later))

    def run(**rest: Any) -> list[Session]:
        return sessions(arranged(trace, Arrangement(users=2, **rest)))

    names = [one.name for one in run(seed=1)]
    assert sorted(names) == [f"s{n}" for n in range(8)]
    assert names == [one.name for one in run(seed=1)] != [one.name for one in run(seed=2)]
    assert {one.name for one in run(half=1)} == {"s0", "s1", "s2", "s3"}
    assert {one.name for one in run(half=2)} == {"s4", "s5", "s6", "s7"}
    assert [one.tenant for one in run(tenants=2)][:3] == ["tenant-1", "tenant-2", "tenant-1"]
    assert len(run(sessions=3)) == 3
    begins = [one.at for one in run()]
    assert all(0 < at <= 30 for at in begins[:2])
    assert begins[2:] == [0.0] * 6
    call = run(tokens=4, pauses=2.0)[0].calls[0]
    assert (call.out, call.pause) == (33, 4.0)
    assert arranged(trace, Arrangement(tokens=4)).granule == 16
    with pytest.raises(ValueError, match="a divisor of 64"):
        arranged(trace, Arrangement(tokens=5))
    with pytest.raises(ValueError, match="pauses: found 0"):
        Arrangement(pauses=0)


def test_sessions_that_come_again_have_tokens_of_their_own_but_for_what_all_begin_with() -> None:
    made = [
        script(f"s{n}", [[1, 2, 3, 10 + n], [1, 2, 3, 10 + n, 7, 8]], [[7], [9]], [("bash", 1.0)]) for n in range(2)
    ]
    twice = arranged(Workload("made", made), Arrangement(users=1, times=2))
    assert "each session comes 2 times" in twice.notes[-1]
    found = {one.name: one.calls for one in sessions(twice)}
    assert sorted(found) == ["s0", "s0 again 1", "s1", "s1 again 1"]
    for name in ("s0", "s1"):
        first, again = found[name], found[f"{name} again 1"]
        assert [(one.keep, one.out, one.pause) for one in first] == [(one.keep, one.out, one.pause) for one in again]
        assert again[0].add[:3] == first[0].add[:3] == (1, 2, 3)
        mine, other = ({*one[0].add[3:], *one[0].say, *one[1].add, *one[1].say} for one in (first, again))
        assert len(mine) == len(other)
        assert not mine & other
    with pytest.raises(ValueError, match="made up as they come"):
        arranged(open_trace("generated:shell:2"), Arrangement(users=1, times=2))


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "count", "calls"),
    [
        ("weka_claude_code.jsonl.gz", 300, 20_000),
        ("lmcache_miniswe.jsonl.gz", 5, 100),
        ("mooncake_conversation.jsonl.gz", 5000, 12_000),
        ("bfcl_multi_turn.jsonl.gz", 300, 3000),
        ("tracelab_examples.jsonl.gz", 2, 19),
        ("sweagent_exec_times.jsonl.gz", 4, 44),
        ("azure2023_code.csv.gz", 8000, 8000),
    ],
)
def test_the_recorded_traces_are_read_whole(name: str, count: int, calls: int) -> None:
    beside = Path(__file__).parents[3] / "shared" / "data"
    file = Path(os.environ.get("SOSTENUTO_SHARED_DATA", beside)) / "traces" / name
    if not file.is_file():
        pytest.skip(f"{name} is in neither $SOSTENUTO_SHARED_DATA/traces nor ../shared/data/traces")
    found = sessions(open_trace(str(file)))
    assert len(found) >= count
    assert sum(len(one.calls) for one in found) >= calls
    for one in found:
        length = 0
        for call in one.calls:
            assert 0 <= call.keep <= length
            assert call.add or call.keep
            assert call.pause >= 0
            length = call.keep + len(call.add) + len(call.say)
