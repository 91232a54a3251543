"""`sostenuto kv` on disk tiers good and bad, in a process that has neither torch nor a model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sostenuto.kvstore import Block, Parked, Seal, pack, park, peek, root, veil
from sostenuto.kvstore.tiers import Store
from sostenuto.runtime.cli import main

PAGE = 4


def seal(tenant: str) -> Seal:
    return Seal(
        model="tiny",
        dtype="float32",
        layers=2,
        kv_heads=1,
        head_dim=2,
        page=PAGE,
        rope="theta=10000",
        tokenizer="bytes",
        adapter="",
        weights="1",
        tenant=veil(tenant),
    )


def put(store: Store, length: int, tenant: str = "acme") -> Parked:
    """Tokens 0, 1, 2, ... as blocks of 100 bytes each."""
    parked = park(root(model="tiny", tenant=tenant), tuple(range(length)), seal(tenant), {"turn": length})
    for link in parked.links():
        data = pack(Block(link.name, link.parent, link.tokens, parked.seal.digest, bytes(100)))
        store.log.append({link.name: data}, {link.name: peek(data)})
    store.log.sync()
    return parked


@pytest.fixture
def tier(tmp_path: Path) -> Path:
    """Two snapshots of one tenant that share two blocks, one of another, and a block that none needs."""
    folder = tmp_path / "tier"
    store = Store(folder, segment=800)
    for key, length, tenant in (("noon", 10, "acme"), ("even\nning", 17, "acme"), ("noon", 3, "globex")):
        store.keep(key, put(store, length, tenant))
        store.drop(put(store, 5, "dropped").names)
    put(store, 9, "loose")
    store.close()
    for age, file in enumerate(sorted((folder / "marks").iterdir())):
        os.utime(file, (1e9 + age, 1e9 + age))
    return folder


def answer(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    assert main(["kv", *map(str, arguments)]) == code
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer(capsys, *arguments, "--json", code=code))
    return found


def test_ls_says_what_lies_there(tier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "ls", tier)
    assert (found["blocks"], found["loose_blocks"], found["bad_snapshots"]) == (3 + 3 + 1 + 3, 3, {})
    assert found["bytes"] > found["served_bytes"] > 0
    assert found["segments"] == len(list((tier / "segments").iterdir()))
    rows = {(row["key"], row["tenant"]): row for row in found["snapshots"]}
    noon, evening = rows["noon", veil("acme")], rows["even\nning", veil("acme")]
    assert (noon["tokens"], noon["blocks"], noon["shared_blocks"], noon["lost_blocks"]) == (10, 3, 2, 0)
    assert (evening["tokens"], evening["blocks"], evening["shared_blocks"]) == (17, 5, 2)
    assert noon["seal"] == seal("acme").digest.hex()
    assert rows["noon", veil("globex")]["shared_blocks"] == 0


def test_ls_for_people_is_a_table_with_a_snapshot_a_line(tier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = answer(capsys, "ls", tier).splitlines()
    assert lines[1] == "10 blocks, 3 of them in no snapshot; 3 snapshots"
    assert lines[3].split() == "snapshot tokens blocks lost shared size age model tenant seal".split()
    assert sorted(line.split()[0] for line in lines[4:]) == ["even\\nning", "noon", "noon"]
    assert all(line.split()[-3:-1] in (["tiny", veil(who)[:8]] for who in ("acme", "globex")) for line in lines[4:])


def test_an_empty_tier_can_be_looked_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Store(tmp_path).close()
    assert as_json(capsys, "ls", tmp_path)["snapshots"] == []
    assert "0 snapshots" in answer(capsys, "ls", tmp_path)
    assert "all as they were written" in answer(capsys, "verify", tmp_path)


def test_show_says_everything_of_a_snapshot(tier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = as_json(capsys, "show", tier, "even\nning")["snapshots"]
    assert found["note"] == {"turn": 17}
    assert found["seal_fields"] == seal("acme").plain()
    assert [each["tokens"] for each in found["chain"]] == [4, 4, 4, 4, 1]
    assert [each["snapshots"] for each in found["chain"]] == [2, 2, 1, 1, 1]
    text = answer(capsys, "show", tier, "even\nning")
    assert "even\\nning: 17 tokens in 5 blocks" in text
    assert "  rope theta=10000" in text.splitlines()


def test_show_finds_the_key_of_every_tenant(tier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "show", tier, "noon")["snapshots"]
    assert {each["tenant"] for each in found} == {veil("acme"), veil("globex")}


def test_an_unknown_key_is_a_fault_that_names_those_there_are(tier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kv", "show", str(tier), "midnight"]) == 1
    assert "no snapshot 'midnight' lies in" in (said := capsys.readouterr().err)
    assert "'even\\nning', 'noon'" in said


def test_verify_is_content_with_what_is_whole(tier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert as_json(capsys, "verify", tier)["faults"] == []
    assert answer(capsys, "verify", tier).startswith("10 blocks, ")


def test_verify_names_each_bad_record_and_exits_1(tier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tier, write=False)
    first = min(store.log.find(head.name for head in store.log.heads()), key=lambda place: place.at)
    store.close()
    data = bytearray(first.segment.path.read_bytes())
    data[first.at + first.head.size - 1] ^= 1
    first.segment.path.write_bytes(data)
    mark = sorted((tier / "marks").iterdir())[0]
    mark.write_bytes(mark.read_bytes()[:-1])
    faults = as_json(capsys, "verify", tier, code=1)["faults"]
    assert any(first.head.name.hex() in fault and "damaged" in fault for fault in faults)
    assert any(mark.name in fault for fault in faults)
    text = answer(capsys, "verify", tier, code=1)
    assert text.count("bad: ") == len(faults)
    assert mark.name in answer(capsys, "ls", tier)


def test_an_unfinished_write_is_said_and_is_no_fault(tier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = sorted((tier / "segments").iterdir())[-1]
    before = last.read_bytes()
    last.write_bytes(before + before[:50])
    assert as_json(capsys, "verify", tier)["unfinished_bytes"] == 50
    assert "50 bytes of an unfinished write" in answer(capsys, "verify", tier)
    assert last.read_bytes() == before + before[:50]


def test_gc_frees_what_nothing_refers_to_and_says_how_much(tier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sum(file.stat().st_size for file in (tier / "segments").iterdir())
    worst, rest = as_json(capsys, "gc", tier, "--least", "0.99"), as_json(capsys, "gc", tier)
    after = sum(file.stat().st_size for file in (tier / "segments").iterdir())
    assert worst["rewritten_segments"] > 0 < rest["rewritten_segments"]
    assert worst["freed_bytes"] + rest["freed_bytes"] == before - after > 0
    assert rest["bytes"] == after
    assert answer(capsys, "gc", tier).startswith("0 B freed by rewriting 0 segments")
    assert as_json(capsys, "ls", tier)["blocks"] == 10


def test_gc_waits_for_no_writer_and_looking_needs_none(tier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tier)
    assert main(["kv", "gc", str(tier)]) == 1
    assert f"process {os.getpid()} writes to" in capsys.readouterr().err
    assert "3 snapshots" in answer(capsys, "ls", tier)
    store.close()


def test_a_folder_that_is_no_tier_is_a_fault_and_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letter").write_text("dear")
    for action in ("ls", "verify", "gc"):
        assert main(["kv", action, str(tmp_path)]) == 1
        assert "no disk tier lies in" in capsys.readouterr().err
    assert main(["kv", "gc", str(tmp_path / "none")]) == 1
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("share", ["1", "-0.1", "much"])
def test_a_share_that_is_none_is_a_wrong_use(tier: Path, share: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["kv", "gc", str(tier), f"--least={share}"])
    assert left.value.code == 2
    assert "share from 0 to below 1" in capsys.readouterr().err


def test_no_torch_is_loaded(tier: Path) -> None:
    code = (
        "import sys; from sostenuto.runtime.cli import main; "
        "assert main(['kv', 'verify', sys.argv[1]]) == 0; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tier)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_gc_drops_what_no_snapshot_needs_where_that_is_asked_for(
    tier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = as_json(capsys, "ls", tier)
    as_json(capsys, "gc", tier)
    assert as_json(capsys, "ls", tier)["blocks"] == before["blocks"]
    as_json(capsys, "gc", tier, "--unmarked")
    after = as_json(capsys, "ls", tier)
    assert 0 < after["blocks"] < before["blocks"]
    for listing in (before, after):
        for snapshot in listing["snapshots"]:
            assert snapshot.pop("age_seconds") >= 0
    assert after["snapshots"] == before["snapshots"]
    assert as_json(capsys, "verify", tier)["faults"] == []


def test_what_is_forgotten_is_in_no_list_and_its_room_can_be_given_back(
    tier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert as_json(capsys, "forget", tier, "noon") == {"forgotten": 2}
    as_json(capsys, "gc", tier, "--unmarked")
    left = as_json(capsys, "ls", tier)
    assert [each["key"] for each in left["snapshots"]] == ["even\nning"]
    assert left["blocks"] == left["snapshots"][0]["blocks"]
    assert main(["kv", "forget", str(tier), "noon"]) == 1
    assert "no snapshot 'noon' lies in" in capsys.readouterr().err
