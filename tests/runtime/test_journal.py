"""The flight recorder: what it wrote gives the same effects again, and what it did not write is noticed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sostenuto.kvstore import Ledger
from sostenuto.runtime.errors import BrokenJournal
from sostenuto.runtime.journal import FORMAT, Journal, decode, encode, replay
from sostenuto.scheduler import (
    POLICIES,
    Arrived,
    Cancelled,
    Closed,
    Event,
    Finished,
    Forking,
    Interrupted,
    Kernel,
    NeedRoom,
    NotTheSame,
    Paused,
    Placed,
    Planned,
    ProgramId,
    Progress,
    Setting,
    Stepped,
    Thinned,
    Thinning,
    Tick,
    ToolEnded,
    ToolStarted,
    Travelled,
    TurnId,
    named,
)

from .conftest import Pair, Stage, draw

Stages = Callable[..., Stage]
P, T = ProgramId("p"), TurnId("t")
EVENTS: list[Event] = [
    Arrived(T, P, "main", "ab" * 16, (1, 2, 3), 9),
    Stepped((Progress(T, 3, (4,)), Progress(TurnId("u"), 1))),
    NeedRoom((T, TurnId("u"))),
    Paused(T, ("search", "read")),
    Finished(T),
    Cancelled(T),
    ToolStarted(P, "search", "c1"),
    ToolEnded(P, "search", "c1", ok=False),
    Interrupted(P),
    Forking(P, 3),
    Planned(P, 2),
    Travelled(P, "checkpoint"),
    Closed(P, "failed"),
    Thinning(T),
    Thinned(T, "cd" * 16, (1, 2)),
    Placed(T, "k"),
    Tick(),
]


@pytest.fixture
def journal(tiny: Pair, stages: Stages, tmp_path: Path) -> Path:
    """Of a loop in which turns of several threads shared, paused, preempted, were refused and were cancelled."""
    path = tmp_path / "journal.jsonl"
    stage = stages(tiny.ours, pool=128, chunk=16, journal=path)

    def work(number: int) -> None:
        prompt = [*draw(12), *draw(8, seed=number)]
        told = stage.say(prompt, f"p{number}", max_tokens=10, tools_called=lambda text, reason: ("search",))
        stage.loop.tell(ToolStarted(ProgramId(f"p{number}"), "search", "c"))
        stage.loop.tell(ToolEnded(ProgramId(f"p{number}"), "search", "c"))
        stage.say([*prompt, *told.tokens, 3, 4], f"p{number}", max_tokens=30)
        next(iter(stage.submit(prompt, f"p{number}", max_tokens=30)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with pytest.raises(Exception, match="the pool has 16"):
        stage.say(draw(200))
    stage.loop.close()
    return path


def test_what_was_written_live_gives_the_same_effects_again(journal: Path) -> None:
    kernel, count = replay(journal)
    lines = journal.read_text().splitlines()
    assert count == len(lines) - 1
    kernel.books.check()
    assert (kernel.books.running, kernel.books.waiting) == (0, 0)
    kinds = {json.loads(line)["event"]["kind"] for line in lines[1:]}
    assert {"Arrived", "Stepped", "Paused", "Finished", "Cancelled", "ToolStarted", "ToolEnded"} <= kinds


def tampered(path: Path, line: int, change: Callable[[dict[str, Any]], None]) -> Path:
    lines = path.read_text().splitlines()
    record = json.loads(lines[line])
    change(record)
    lines[line] = json.dumps(record)
    path.write_text("\n".join(lines) + "\n")
    return path


def first(path: Path, kind: str) -> int:
    """The line of the first event that was followed by such an effect."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return next(
        n for n, record in enumerate(records) if any(effect["kind"] == kind for effect in record.get("effects", ()))
    )


def test_a_changed_effect_is_not_the_same_and_its_line_is_named(journal: Path) -> None:
    line = first(journal, "Hold")

    def longer(record: dict[str, Any]) -> None:
        next(effect for effect in record["effects"] if effect["kind"] == "Hold")["until"] += 1

    with pytest.raises(NotTheSame, match=f"line {line + 1}: Paused"):
        replay(tampered(journal, line, longer))


def test_a_journal_is_replayed_under_its_own_policy_or_not_at_all(journal: Path) -> None:
    written = json.loads(journal.read_text(encoding="utf-8").splitlines()[0])["policy"]
    other = next(policy for name, policy in POLICIES.items() if name != written)
    with pytest.raises(BrokenJournal, match=f"written under '{written}'; found the policy '{other.name}'"):
        replay(journal, other)
    assert replay(journal, POLICIES[written])[1] > 0


def test_a_changed_event_is_not_the_same(journal: Path) -> None:
    def shorter(record: dict[str, Any]) -> None:
        record["event"]["tokens"] = record["event"]["tokens"][:3]

    with pytest.raises(NotTheSame):
        replay(tampered(journal, first(journal, "Start"), shorter))


def test_a_lost_line_is_not_the_same(journal: Path) -> None:
    lines = journal.read_text().splitlines()
    del lines[first(journal, "Start")]
    journal.write_text("\n".join(lines) + "\n")
    with pytest.raises(NotTheSame):
        replay(journal)


def test_a_journal_cut_off_while_it_was_written_names_the_line(journal: Path) -> None:
    text = journal.read_text()
    journal.write_text(text[: len(text) // 2])
    with pytest.raises(BrokenJournal, match="killed while writing"):
        replay(journal)


MADE_OF = {
    "format": FORMAT,
    "policy": "sostenuto",
    "room": 4,
    "page": 4,
    "grows": True,
    "setting": Setting().data(),
    "tiers": {},
}
HEAD = json.dumps(MADE_OF) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\x80\x81 garbage \xff",
        b"[]",
        b"{}",
        json.dumps({"format": FORMAT}).encode(),
        json.dumps(MADE_OF | {"format": FORMAT - 1}).encode(),
        json.dumps(MADE_OF | {"policy": "no such"}).encode(),
        json.dumps(MADE_OF | {"room": 0}).encode(),
        json.dumps(MADE_OF | {"room": "x"}).encode(),
        HEAD.encode() + b'"text"',
        HEAD.encode() + b'{"at":1}',
        HEAD.encode() + b'{"at":1,"effects":[],"event":[]}',
        HEAD.encode() + b'{"at":1,"effects":[],"event":{"kind":"Nonsense"}}',
        HEAD.encode() + b'{"at":1,"effects":[],"event":{"kind":"Finished"}}',
        HEAD.encode() + b'{"at":1,"effects":[],"event":{"kind":"Finished","turn":"t","more":1}}',
        HEAD.encode() + b'{"at":1,"effects":[],"event":{"kind":"Stepped","progress":[3]}}',
        HEAD.encode() + b'{"at":"x","effects":[],"event":{"kind":"Tick"}}',
    ],
)
def test_garbage_is_a_broken_journal(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(text)
    with pytest.raises(BrokenJournal, match=r"journal\.jsonl"):
        replay(path)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_is_read_as_it_was_written(event: Event) -> None:
    assert decode(json.loads(json.dumps(encode(event)))) == event


def test_every_line_is_on_the_disk_before_the_next_event(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    policy = named("sostenuto")
    kernel = Kernel(Ledger(4, 4, rank=policy.evict), policy)
    journal = Journal(path, kernel)
    for number, event in enumerate([EVENTS[0], Tick(), EVENTS[5]]):
        journal.write(event, float(number), kernel.handle(event, float(number)))
        assert replay(path)[1] == number + 1
    journal.close()
