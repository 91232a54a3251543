"""Every event as a line of JSON: the flight recorder.

The first line says what the kernel was made of; each later line holds one event, when it came, and the effects that
followed. A replay feeds the events to a new kernel and must get the same effects.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import IO, Any

from ..kvstore import Elsewhere, Group, Groups, Ledger
from ..scheduler import (
    Arrived,
    Cancelled,
    Closed,
    Effect,
    Event,
    Finished,
    Forking,
    Hinted,
    Interrupted,
    Kernel,
    Known,
    Lost,
    Marked,
    Moved,
    Moving,
    NeedRoom,
    NotTheSame,
    Paused,
    Placed,
    Planned,
    Policy,
    Progress,
    Reweighted,
    Setting,
    Stepped,
    Thinned,
    Thinning,
    Tick,
    ToolEnded,
    ToolStarted,
    Travelled,
    Unmarked,
    named,
)
from .errors import BrokenJournal

FORMAT = 7
_EVENTS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        Arrived,
        Stepped,
        NeedRoom,
        Paused,
        Finished,
        Cancelled,
        ToolStarted,
        ToolEnded,
        Interrupted,
        Forking,
        Planned,
        Travelled,
        Closed,
        Marked,
        Unmarked,
        Reweighted,
        Moved,
        Known,
        Lost,
        Thinning,
        Thinned,
        Placed,
        Hinted,
        Tick,
    )
}


class Journal:
    """Writes a journal to a file, a line at a time."""

    def __init__(self, path: Path, kernel: Kernel) -> None:
        self.path = path
        self._file: IO[str] = path.open("w", encoding="utf-8")
        head = {"format": FORMAT, "policy": kernel.policy.name, "room": kernel.books.room, "page": kernel.books.page}
        head |= {"grows": kernel.books.grows, "setting": kernel.setting.data()}
        head |= {"tiers": kernel.moves.elsewhere.rooms, "groups": _plain(kernel.ledger.groups)}
        self._line(head)

    def write(self, event: Event, now: float, effects: Sequence[Effect]) -> None:
        self._line({"at": now, "event": encode(event), "effects": [encode(effect) for effect in effects]})

    def close(self) -> None:
        self._file.close()

    def _line(self, record: dict[str, Any]) -> None:
        # Flushed line by line: a journal is read after a crash.
        self._file.write(json.dumps(record, separators=(",", ":")) + "\n")
        self._file.flush()


def replay(path: Path, policy: Policy | None = None) -> tuple[Kernel, int]:
    """Feed a journal to a new kernel; returns it and the number of events. `policy` is needed for one of your own.

    Raises BrokenJournal when a line cannot be read, NotTheSame when an event gave other effects than recorded.
    """
    kernel: Kernel | None = None
    count = 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            record = _read(path, number, line)
            if kernel is None:
                kernel = _kernel(path, record, policy)
                continue
            try:
                event, now, expected = decode(record["event"]), float(record["at"]), record["effects"]
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise BrokenJournal(f"{path}, line {number}: no event can be read from it ({error})") from error
            got = [encode(effect) for effect in kernel.handle(event, now)]
            if json.loads(json.dumps(got)) != expected:
                raise NotTheSame(
                    f"{path}, line {number}: {type(event).__name__} gave {json.dumps(got)}, "
                    f"the journal has {json.dumps(expected)}"
                )
            count += 1
    if kernel is None:
        raise BrokenJournal(f"{path} is empty: a journal begins with a line that names policy, room and page")
    return kernel, count


def encode(value: Event | Effect) -> dict[str, Any]:
    """An event or effect as JSON: its kind, then its fields."""
    return {"kind": type(value).__name__, **{field.name: _plain(getattr(value, field.name)) for field in fields(value)}}


def decode(record: dict[str, Any]) -> Event:
    """The event that `encode` wrote; KeyError or TypeError for anything else."""
    values = {key: tuple(item) if isinstance(item, list) else item for key, item in record.items() if key != "kind"}
    kind: Any = _EVENTS[record["kind"]]
    if kind is Stepped:
        steps = (Progress(step["turn"], step["computed"], tuple(step["said"])) for step in record["progress"])
        return Stepped(tuple(steps))
    if kind is Reweighted:
        values["roots"] = tuple((old, new) for old, new in values["roots"])
    if kind is Known:
        values["blocks"] = tuple(Moving(**block | {"tokens": tuple(block["tokens"])}) for block in record["blocks"])
    event: Event = kind(**values)
    return event


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value


def _read(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise BrokenJournal(
            f"{path}, line {number} is no JSON ({error}): was the program killed while writing?"
        ) from error
    if not isinstance(record, dict):
        raise BrokenJournal(f"{path}, line {number}: expected an object, found {type(record).__name__}")
    return record


def _kernel(path: Path, head: dict[str, Any], own: Policy | None) -> Kernel:
    if head.get("format") != FORMAT:
        raise BrokenJournal(f"{path}: expected a journal of format {FORMAT}, found {head.get('format')!r}")
    try:
        if own is not None and own.name != head["policy"]:
            raise ValueError(f"it was written under {head['policy']!r}; found the policy {own.name!r} to replay it")
        policy = own or named(head["policy"])
        ledger = Ledger(head["room"], head["page"], rank=policy.evict)
        each, stride = head["groups"]["each"], head["groups"]["stride"]
        ledger.groups = Groups(tuple(Group(tuple(one["layers"]), one["window"]) for one in each), stride)
        elsewhere = Elsewhere(head["page"], head["tiers"])
        setting = Setting.read(head["setting"])
        return Kernel(ledger, policy, grows=head["grows"], elsewhere=elsewhere, setting=setting)
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenJournal(f"{path}, line 1 should name policy, room and page: {error}") from error
