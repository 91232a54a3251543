"""The demo's tasks: one JSON object a line, ours or the user's own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .errors import TaskFileError

TASKS = Path(__file__).parent / "data" / "tasks.jsonl"
LONGEST_QUESTION = 2000
_SHAPE = 'expected {"id": "a-name", "question": "what to find out"}'


@dataclass(frozen=True, slots=True)
class Task:
    """A question for the agent. ``id`` is unique in its file."""

    id: str
    question: str


def load_tasks(path: Path | None = None) -> tuple[Task, ...]:
    """The tasks of a JSON Lines file (UTF-8; empty lines are passed over), ours when ``path`` is None.

    Raises ``TaskFileError`` for a file that cannot be read, holds no task, or has a line that is none.
    """
    source = TASKS if path is None else path
    try:
        text = source.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise TaskFileError(f"{source}: cannot be read ({error.strerror}); give a JSON Lines file") from error
    except UnicodeDecodeError as error:
        raise TaskFileError(f"{source}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    lines: dict[str, int] = {}
    tasks: list[Task] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{source}, line {number}"
        task = _task(line, where)
        if task.id in lines:
            raise TaskFileError(f"{where}: id {task.id!r} is taken by line {lines[task.id]}; give each task its own")
        lines[task.id] = number
        tasks.append(task)
    if not tasks:
        raise TaskFileError(f"{source}: no task in it; {_SHAPE} on each line")
    return tuple(tasks)


def _task(line: str, where: str) -> Task:
    try:
        found = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise TaskFileError(f"{where}: not JSON ({error}); {_SHAPE}") from error
    if not isinstance(found, dict):
        raise TaskFileError(f"{where}: found a JSON {type(found).__name__}; {_SHAPE}")
    if found.keys() != {"id", "question"}:
        raise TaskFileError(f"{where}: found the keys {sorted(found)}; {_SHAPE}")
    for key, value in found.items():
        if not isinstance(value, str) or not value.strip():
            raise TaskFileError(f"{where}: {key!r} is {value!r:.60}; expected a text that is not empty")
    if len(found["question"]) > LONGEST_QUESTION:
        raise TaskFileError(
            f"{where}: the question has {len(found['question'])} characters; shorten it to {LONGEST_QUESTION}"
        )
    return Task(id=found["id"], question=found["question"])
