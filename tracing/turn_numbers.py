"""What an engine has to tell of its turns and holds, as metrics. Times are given, never read."""

from __future__ import annotations

from dataclasses import dataclass

from . import names
from .meters import hold_blocks, meters
from .names import Value


@dataclass(frozen=True, slots=True)
class TurnNumbers:
    """One turn that is over. None: not known, or there was none; then nothing is counted."""

    model: str
    provider: str
    seconds: float
    """From its arrival to its end."""
    queued: float | None = None
    """Of these, waiting for its start."""
    first_token: float | None = None
    """Seconds from its arrival to its first token."""
    per_token: float | None = None
    """Seconds per token after the first one, on average."""
    prompt: int | None = None
    """Tokens of its prompt."""
    said: int | None = None
    """Tokens of its answer."""
    hit: int | None = None
    """Tokens whose keys and values were there already."""
    computed: int | None = None
    """Tokens whose keys and values were computed for the first time."""
    recomputed: int | None = None
    """Tokens whose keys and values had been computed before, and were gone."""
    error: str | None = None
    """What it failed with, as `error.type` wants it."""


def record_turn(numbers: TurnNumbers) -> None:
    """Counts a turn, wherever metrics go. If they go nowhere it costs a look."""
    to = meters()
    if not to:
        return
    asked: dict[str, Value] = {
        names.OPERATION: names.CHAT,
        names.PROVIDER: numbers.provider,
        names.REQUEST_MODEL: numbers.model,
    }
    times = {names.QUEUE_DURATION: numbers.queued}
    if numbers.error is None:
        times |= {names.SERVER_FIRST_TOKEN: numbers.first_token, names.SERVER_PER_TOKEN: numbers.per_token}
    ended = asked if numbers.error is None else asked | {names.ERROR_TYPE: numbers.error}
    counts = (
        (names.TURN_TOKENS, names.TOKEN_TYPE, {"input": numbers.prompt, "output": numbers.said}),
        (
            names.KV_TOKENS_COUNT,
            names.KV_KIND,
            {"hit": numbers.hit, "computed": numbers.computed, "recomputed": numbers.recomputed},
        ),
    )
    for each in to:
        each.record(names.SERVER_DURATION, numbers.seconds, ended)
        for name, seconds in times.items():
            if seconds is not None:
                each.record(name, seconds, asked)
        for name, key, kinds in counts:
            for kind, tokens in kinds.items():
                if tokens is not None:
                    each.add(name, tokens, asked | {key: kind})


def held(blocks_delta: int) -> None:
    """So many more blocks are under holds in this process, or fewer. Said whether anybody counts or not."""
    hold_blocks(blocks_delta)


def hold_ended(why_kind: str) -> None:
    """A hold is over; `why_kind` is one word of few: `resumed`, `expired`, `pressure` ..."""
    for each in meters():
        each.add(names.KV_HOLDS, 1, {names.HOLD_END: why_kind})
