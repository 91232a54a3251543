"""The log as a file: begun, gone on with, killed, cut off, written to by two; and what an executor writes there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from sostenuto.runtime.cli import main
from sostenuto.runtime.errors import BrokenAudit
from sostenuto.runtime.execute.audit import EVERY, Audit, head_of, verify_file
from sostenuto.runtime.execute.authority import Place
from sostenuto.runtime.execute.executor import Executor
from sostenuto.runtime.execute.outcome import Job
from sostenuto.runtime.execute.policy import Policy
from sostenuto.tools.contracts import Contract
from sostenuto.tools.grants import Ceiling

from .calls import Turned, job

KEY = b"a key of thirty-two bytes, or so"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def write(path: Path, count: int = 3, **given: Any) -> None:
    with Audit(path, KEY, **given) as audit:
        for n in range(count):
            audit.append("decided", {"call": f"c{n}"})


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_log_goes_on_where_it_ended(path: Path) -> None:
    write(path)
    write(path, 2)
    assert [one["kind"] for one in records(path)] == [
        "opened", "decided", "decided", "decided", "closed", "continued", "decided", "decided", "closed",
    ]  # fmt: skip
    assert [one["n"] for one in records(path)] == list(range(9))
    assert verify_file(path, KEY).faults == ()
    assert path.stat().st_mode & 0o077 == 0, "nobody else reads it"


def test_two_do_not_write_at_once_and_a_weak_key_is_refused(path: Path) -> None:
    with Audit(path, KEY), pytest.raises(BrokenAudit, match="writer already"):
        Audit(path, KEY)
    with pytest.raises(BrokenAudit, match="6 bytes"):
        Audit(path, b"secret")


@pytest.mark.parametrize("spoil", ["change", "drop", "cut", "empty", "head", "key"])
def test_a_log_that_is_not_whole_is_not_gone_on_with(path: Path, spoil: str) -> None:
    write(path)
    lines = path.read_bytes().splitlines(keepends=True)
    key = KEY
    match spoil:
        case "change":
            path.write_bytes(b"".join(lines).replace(b'"c1"', b'"c9"'))
        case "drop":
            path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
        case "cut":
            path.write_bytes(b"".join(lines[:-1]))
        case "empty":
            path.write_bytes(b"")
        case "head":
            head_of(path).unlink()
        case "key":
            key = KEY[::-1]
    before = path.read_bytes()
    with pytest.raises(BrokenAudit):
        Audit(path, key)
    assert path.read_bytes() == before, "what is left of it is evidence"


def test_a_record_that_a_crash_cut_off_at_any_byte_is_no_fault_and_the_log_goes_on(path: Path) -> None:
    audit = Audit(path, KEY)
    audit.append("decided", {"call": "c0"})
    head = head_of(path).read_bytes()
    size = path.stat().st_size
    audit.append("decided", {"call": "c1"})
    audit._shut()  # as a crash leaves it
    line = path.read_bytes()[size:]
    for left in range(len(line) + 1):
        path.write_bytes(path.read_bytes()[:size] + line[:left])
        head_of(path).write_bytes(head)
        assert verify_file(path, KEY).faults == (), left
        with Audit(path, KEY):
            pass
        found = verify_file(path, KEY)
        assert (found.faults, records(path)[1]["call"]) == ((), "c0")
        assert records(path)[-2]["torn"] == (left if left < len(line) else 0)
        path.write_bytes(path.read_bytes()[:size])


KILLED = """
import sys
from pathlib import Path
from sostenuto.runtime.execute.audit import Audit
audit = Audit(Path(sys.argv[1]), sys.argv[2].encode())
n = 0
while True:
    audit.append("decided", {"call": f"c{n}"})
    n += 1
    if n % 50 == 0: print(n, flush=True)
"""


def test_a_writer_that_is_killed_leaves_a_whole_log(path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(path), KEY.decode()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [int(writer.stdout.readline()) for _ in range(4)][-1]
        os.kill(writer.pid, signal.SIGKILL)
    found = verify_file(path, KEY)
    assert found.faults == ()
    assert found.records > said, "what it said was done is there"


def test_a_record_that_the_disk_took_in_part_is_taken_back_and_its_call_is_not_made(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, ran = os.write, []
    with Audit(path, KEY) as audit:
        with monkeypatch.context() as full:
            full.setattr(os, "write", lambda file, line: whole(file, line[: len(line) // 2]))
            with pytest.raises(BrokenAudit, match="written in part"):
                Executor(audit=audit).run(job(), lambda: ran.append(1))
        assert audit.append("decided", {}) == 1
    assert ran == []
    assert verify_file(path, KEY).faults == ()


def test_anchors_go_elsewhere_and_find_what_the_head_cannot(path: Path, tmp_path: Path) -> None:
    noted: list[bytes] = []
    write(path, EVERY, anchor=noted.append)
    assert len(noted) == 2, "one on the way, one at the end"
    anchors = tmp_path / "anchors"
    anchors.write_bytes(b"".join(noted))
    assert verify_file(path, KEY, anchors).faults == ()
    other = tmp_path / "other"
    write(other, 3)
    path.write_bytes(other.read_bytes())
    head_of(path).write_bytes(head_of(other).read_bytes())
    assert verify_file(path, KEY).faults == (), "log and head both exchanged"
    assert {fault.kind for fault in verify_file(path, KEY, anchors).faults} == {"missing", "foreign"}
    anchors.write_bytes(b"{}\n")
    with pytest.raises(BrokenAudit, match="line 1 is no anchor"):
        verify_file(path, KEY, anchors)


def test_the_command_names_the_line_and_exits_with_one(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(path)
    monkeypatch.setenv("AUDIT_KEY", KEY.decode())
    command = ["audit", "verify", str(path), "--key-from", "AUDIT_KEY"]
    assert main(command) == 0
    assert "5 records whole and in their places, 0 faults" in capsys.readouterr().out
    path.write_bytes(path.read_bytes().replace(b'"c1"', b'"c9"'))
    assert main([*command, "--json"]) == 1
    (fault,) = json.loads(capsys.readouterr().out)["faults"]
    assert (fault["line"], fault["kind"]) == (3, "changed")
    assert main(command) == 1
    assert f"{path}, line 3: changed: record 2" in capsys.readouterr().out
    assert main([*command[:-1], "NO_SUCH_VARIABLE"]) == 1
    assert "expected at least 16" in capsys.readouterr().err
    assert main(["audit", "verify", str(path) + ".not", "--key-from", "AUDIT_KEY"]) == 1
    assert "No such file" in capsys.readouterr().err


def test_every_decision_and_every_outcome_has_a_record(path: Path) -> None:
    turned = Turned()
    policy = Policy({"look": Contract("read")})
    with Audit(path, KEY, clock=turned.clock) as audit:
        executor = Executor(policy, audit=audit, clock=turned.clock)
        one = job(secret="hunter2")
        executor.run(
            Job(one.call, one.tool, Place("a", "s", "t"), ceilings={"look": Ceiling(calls=1)}), lambda: "sesame"
        )
        executor.run(
            Job(one.call, one.tool, Place("a", "s", "u"), ceilings={"look": Ceiling(calls=1)}), lambda: "again"
        )
        executor.run(job("fail"), lambda: 1 / 0)
        executor.reject(one.call, Place("a", "s"), "invalid")
    told = [
        (one["kind"], one.get("allowed"), one.get("why"), one.get("code")) for one in records(path) if "call" in one
    ]
    assert told == [
        ("decided", True, "node", None),
        ("ended", None, None, "ran"),
        ("decided", False, "spent", None),
        ("ended", None, None, "denied"),
        ("decided", True, "nothing here needs a grant", None),
        ("ended", None, None, "failed"),
        ("decided", False, "invalid", None),
    ]
    first, second = records(path)[1:3]
    assert (second["decided"], len(first["grants"]), first["session"]) == (first["n"], 3, "s")
    assert not {b"hunter2", b"sesame"} & set(path.read_bytes().split(b'"')), "digests, never what was said"
    assert verify_file(path, KEY).faults == ()


async def test_a_write_that_its_caller_left_is_in_the_log_as_unknown(path: Path) -> None:
    with Audit(path, KEY) as audit:
        with anyio.CancelScope() as caller:

            async def book() -> None:
                caller.cancel()
                await anyio.sleep_forever()

            await Executor(audit=audit).arun(job("book"), book)
    assert [one["code"] for one in records(path) if one["kind"] == "ended"] == ["unknown"]


def test_no_call_goes_unrecorded(path: Path) -> None:
    audit, ran = Audit(path, KEY), []
    audit.close()
    with pytest.raises(BrokenAudit, match="closed"):
        Executor(audit=audit).run(job(), lambda: ran.append(1))
    assert ran == []
