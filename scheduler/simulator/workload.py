"""What programs do: recorded or made up, call by call, as plain data.

A workload counts in *granules*: a token of the schedule stands for so many tokens of the trace, so that contexts of a
hundred thousand tokens can be replayed by the thousand. Time is that of the trace's own tokens; a granule of one is
the trace as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """One model call. Its prompt is the beginning of its line's context and what is new."""

    keep: int
    """So many granules of the context, the last answer included, come again."""
    add: tuple[int, ...]
    """The granules that follow: what a tool gave back, what a person wrote."""
    say: tuple[int, ...]
    """The answer, in granules; at least one."""
    out: int
    """Its tokens: the last granule may be a part of one."""
    tools: tuple[str, ...] = ()
    """Called at its end: the program pauses for them. None: it answers, and what follows is another job."""
    pause: float = 0.0
    """Seconds from its end to the next call."""


@dataclass(frozen=True, slots=True)
class Session:
    """One line of conversation. It falls into jobs, each from what a person wrote to the answer."""

    name: str
    calls: tuple[Call, ...]
    tenant: str = "default"
    at: float = 0.0
    """When it begins, where sessions do not wait for a user."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Sessions to be run; `sessions` is gone through anew for each run."""

    name: str
    sessions: Iterable[Session]
    granule: int = 1
    """Tokens of the trace for each token of the schedule."""
    notes: tuple[str, ...] = ()
    """What in it is not as it was recorded."""
    timed: bool = False
    """Sessions begin when they say; else a user begins one when his last is over."""


def script(
    name: str, prompts: Iterable[Sequence[int]], answers: Sequence[Sequence[int]], pauses: Sequence[tuple[str, float]]
) -> Session:
    """A session out of whole prompts, in granules of one token.

    Each pause is (tool, seconds); a tool of "" is a person. There is one pause for each answer but the last, which
    ends the session.
    """
    calls: list[Call] = []
    context: list[int] = []
    waits = [*pauses, ("", 0.0)]
    for prompt, answer, (tool, seconds) in zip(prompts, answers, waits, strict=True):
        keep = common(context, prompt)
        tools = (tool,) if tool else ()
        calls.append(Call(keep, tuple(prompt[keep:]), tuple(answer), len(answer), tools, seconds))
        context = [*prompt, *answer]
    return Session(name, tuple(calls))


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    length = min(len(one), len(other))
    low, high = 0, length
    while low < high:  # by halving: slices compare quickly
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
