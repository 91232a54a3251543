"""From recorded calls to sessions: contexts in granules, answers that come again in the next prompt, pauses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ...scheduler.simulator import Call, Session, common

TOOL = "tool"
"""What a tool is called of which the trace does not say the name."""


class Prompt(Protocol):
    """A recorded prompt, in granules."""

    def __len__(self) -> int: ...
    def common(self, before: Prompt | None) -> int:
        """How many both begin with."""
        ...

    def after(self, keep: int) -> tuple[int, ...]:
        """All but the first ones."""
        ...


class Plain:
    """A prompt whose granules are all at hand; at least one."""

    def __init__(self, names: Sequence[int]) -> None:
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def common(self, before: Prompt | None) -> int:
        return common(before._names, self._names) if isinstance(before, Plain) else 0

    def after(self, keep: int) -> tuple[int, ...]:
        return tuple(self._names[keep:])


@dataclass(slots=True)
class Asked:
    """A recorded call: its whole prompt in granules, the tokens that were said, and what came before it."""

    prompt: Prompt
    out: int
    tools: tuple[str, ...] = ()
    """Called at its end."""
    pause: float = 0.0
    """Between its end and the next call."""


class Fresh:
    """Numbers that no trace uses: what is in no recorded block."""

    def __init__(self) -> None:
        self._next = -1

    def take(self, count: int) -> tuple[int, ...]:
        """So many that are used nowhere else."""
        first = self._next
        self._next -= count
        return tuple(range(first, first - count, -1))


@dataclass(slots=True)
class Builder:
    """Puts a session together call by call. `slack` granules at a prompt's end may differ in the next one and are
    taken to be the same: a block that was not full then has another name when it is."""

    granule: int
    slack: int = 0
    fresh: Fresh = field(default_factory=Fresh)

    def session(self, name: str, asked: Sequence[Asked], *, at: float = 0.0) -> Session:
        """A session of these calls, in order."""
        return Session(name, tuple(self._calls(asked)), at=at)

    def _calls(self, asked: Sequence[Asked]) -> Iterator[Call]:
        recorded: Prompt | None = None
        before = said = 0
        for one in asked:
            prompt = one.prompt
            kept = prompt.common(recorded)
            if recorded is not None and kept >= before - self.slack and len(prompt) >= before:
                # It goes on where the last one ended: its first new granules are what was answered.
                keep = min(before + said, len(prompt) - 1)
                keep = max(keep, before) if len(prompt) > before else before
            else:
                keep = kept
            say = self.fresh.take(max(1, -(-one.out // self.granule)))
            yield Call(keep, prompt.after(keep), say, max(1, one.out), one.tools, one.pause)
            recorded, before, said = prompt, len(prompt), len(say)
