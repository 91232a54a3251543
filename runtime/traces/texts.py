"""Traces that hold what was written: LMCache's agent sessions and BFCL's tasks. A token is taken to be four letters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from zlib import crc32

from ...scheduler.simulator import Session, Workload
from .building import TOOL, Asked, Builder, Plain
from .pauses import PEOPLE, TOOLS
from .reading import Row, objects

LETTERS = 4
"""Of a token, in the mean of English text and code."""
RATE = 150.0
"""Tokens that a served model says in a second: agentic-bench fitted 59 to 293 on 22,490 sessions."""
CLASS_TOKENS = 1500
"""What the tools of one of BFCL's classes take in a prompt."""
RESULT_TOKENS = 60

_Parts = list[tuple[str, bool]]


def lmcache(path: Path, granule: int) -> Workload:
    """Prompts coded as what they keep of an earlier one and what they add; gaps hold the model's and the tool's time.

    The recording leaves replies out of later prompts: they are put back where they were said.
    """
    lines: dict[str, list[Row]] = {}
    for row, _ in objects(path):
        lines.setdefault(row.text("sid"), []).append(row)
    build = Builder(granule, 1)
    notes = (
        "replies are put back into later prompts",
        f"a pause is the gap without the time of the reply at {RATE:g} tokens/s, and 0.05 s at least",
        f"a token is {LETTERS} letters",
    )
    return Workload("lmcache", [_lmcache(build, name, rows) for name, rows in lines.items()], granule, notes)


def _lmcache(build: Builder, name: str, rows: Sequence[Row]) -> Session:
    prompts: list[_Parts] = []
    asked: list[Asked] = []
    for number, row in enumerate(rows):
        base = row.whole("base")
        if not -1 <= base < number:
            raise row.wrong("base", f"-1, or the number of an earlier prompt, below {number}")
        parts: _Parts = []
        if base >= 0:
            parts = _kept(prompts[base], row.count("keep"), rows[base].text("out"))
        parts.append((row.text("add"), False))
        prompts.append(parts)
        out = max(1, len(row.text("out")) // LETTERS)
        if asked:
            gap = row.seconds("t") - rows[number - 1].seconds("t")
            asked[-1].tools = (TOOL,)
            asked[-1].pause = max(0.05, gap - asked[-1].out / RATE)
        asked.append(Asked(Plain(pieces("".join(text for text, _ in parts), build.granule)), out))
    return build.session(name, asked)


def _kept(parts: _Parts, keep: int, reply: str) -> _Parts:
    """The first letters of a recorded prompt and the replies that stand between them, its own behind all of it."""
    kept: _Parts = []
    for text, said in parts:
        if said:
            kept.append((text, True))
            continue
        kept.append((text[:keep], False))
        keep -= len(text)
        if keep < 0:
            return kept
    return [*kept, (reply, True)]


def pieces(text: str, granule: int) -> tuple[int, ...]:
    """A text as granules, each named by its letters."""
    size = LETTERS * granule
    return tuple(crc32(text[at : at + size].encode()) for at in range(0, len(text), size)) or (0,)


def bfcl(path: Path, granule: int, seed: int) -> Workload:
    """Tasks with their right tool calls: each call is one of the model's, each turn ends with an answer."""
    random = Random(f"bfcl pauses {seed}")
    build = Builder(granule, 1)
    sessions = []
    for row, _ in objects(path):
        text = "".join(f"{name:~<{CLASS_TOKENS * LETTERS}}" for name in row.items("classes"))
        asked: list[Asked] = []
        calls = row.items("calls")
        for number, turn in enumerate(row.items("turns")):
            text += "\n".join(map(str, turn))
            if asked:
                asked[-1].pause = PEOPLE["agentic"](random)
            for call in calls[number] if number < len(calls) else ():
                called = str(call)
                out = max(1, len(called) // LETTERS)
                asked.append(Asked(Plain(pieces(text, granule)), out, (called.split("(")[0],), TOOLS["shell"](random)))
                text += called + f"{number}.{len(asked)}".ljust(RESULT_TOKENS * LETTERS, "=")
            asked.append(Asked(Plain(pieces(text, granule)), RESULT_TOKENS))
            text += f"{row.text('sid')}.{number}".ljust(RESULT_TOKENS * LETTERS, "-")
        sessions.append(build.session(row.text("sid"), asked))
    notes = (
        "pauses are modelled: tools with p50 0.24 s and p90 0.79 s, people with median 15 s and mean 30 s",
        f"tools take {CLASS_TOKENS} tokens a class, results and answers {RESULT_TOKENS}",
    )
    return Workload("bfcl", sessions, granule, notes)
