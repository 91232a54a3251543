"""A task file is read as it stands, or refused with the line and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from sostenuto.runtime.demo.errors import TaskFileError
from sostenuto.runtime.demo.tasks import Task, load_tasks


def test_the_demo_brings_eight_tasks() -> None:
    tasks = load_tasks()
    assert len(tasks) == len({task.id for task in tasks}) == 8
    assert all(task.question.endswith("?") for task in tasks)


def test_a_users_file_is_read_in_order_and_empty_lines_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_bytes(
        b'\xef\xbb\xbf{"id": "b", "question": "Wie hei\xc3\x9ft er?"}\r\n\r\n{"question": "2?", "id": "a"}'
    )
    assert load_tasks(file) == (Task(id="b", question="Wie heißt er?"), Task(id="a", question="2?"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "line 2: not JSON"),
        (b"[" * 100_000, "line 2: not JSON"),
        (b'["id"]', "line 2: found a JSON list"),
        (b'{"id": "b"}', "line 2: found the keys ['id']"),
        (
            b'{"id": "b", "question": "q", "answer": "a"}',
            "line 2: found the keys ['answer', 'id', 'question']",
        ),
        (b'{"id": "b", "question": 7}', "line 2: 'question' is 7"),
        (b'{"id": " ", "question": "q"}', "line 2: 'id' is ' '"),
        (b'{"id": "a", "question": "q"}', "line 2: id 'a' is taken by line 1"),
        (b'{"id": "b", "question": "%s"}' % (b"q" * 2001), "line 2: the question has 2001 characters"),
        (b"\xff", "byte 29 is not UTF-8"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, reason: str) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_bytes(b'{"id": "a", "question": "?"}\n' + line)
    with pytest.raises(TaskFileError) as caught:
        load_tasks(file)
    assert str(file) in str(caught.value)
    assert reason in str(caught.value)


def test_a_file_without_tasks_and_a_file_that_is_missing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(TaskFileError, match="no task in it"):
        load_tasks(tmp_path / "empty.jsonl")
    with pytest.raises(TaskFileError, match="cannot be read"):
        load_tasks(tmp_path / "missing.jsonl")
