"""What is measured of an engine: reading a prompt, saying tokens in a batch, coming back from a tool, whole agents.

Standard library alone: it runs in every peer's environment.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

from .engine_speaking import Heard, Speaker, prompt

Measured = dict[str, Any]
TOOL = 1.0
"""Seconds of the tool between the two turns of `resume`."""


async def prefill(speaker: Speaker, *, tokens: int, seed: str) -> Measured:
    """Tokens of a prompt that nobody has seen, by the second, until the first token of the answer."""
    (heard,) = await speaker.together([prompt(f"{seed} prefill", tokens)], 1)
    seconds = heard.own.get("prompt_s", heard.first)
    return {"value": tokens / seconds, "seconds": seconds, "cached": heard.cached}


async def decode(speaker: Speaker, *, batch: int, context: int, tokens: int, seed: str) -> Measured:
    """Tokens by the second while all of a batch speak, behind contexts that are in the cache already, if it has one.

    The contexts are the same in all rounds; each is a different one. Counted is from the last of the first tokens to
    the first of the last ones.
    """
    contexts = [prompt(f"{seed} context {number}", context) for number in range(batch)]
    for each in contexts:
        await speaker.together([each], 1)
    answers = await speaker.together(contexts, tokens)
    begin, end = max(one.times[0] for one in answers), min(one.times[-1] for one in answers)
    count = sum(one.said(begin, end) for one in answers) if begin < end else 0
    if count < batch * tokens // 4:
        raise RuntimeError(f"of {batch} answers of {tokens} tokens only {count} came while all spoke: no cache?")
    seconds = end - begin
    if batch == 1 and "decode_s" in answers[0].own:  # by the server's own clock, which knows of no network
        count, seconds = tokens, answers[0].own["decode_s"]
    measured: Measured = {"value": count / seconds, "steps_ms": steps(answers, begin, end)}
    measured["cached"] = [one.cached for one in answers]
    if (computing := speaker.computing(begin, end)) is not None:
        measured |= {"window_s": end - begin, "forward_s": computing}
    return measured


async def resume(speaker: Speaker, *, tokens: int, new: int, seed: str) -> Measured:
    """Seconds from a tool's return to the next token, with so many tokens behind it and few new ones."""
    context = prompt(f"{seed} resume", tokens)
    heard = await speaker.say(context, 32, session=f"{seed} resume", pauses=True)
    await asyncio.sleep(TOOL)
    context += [*heard.tokens, *prompt(f"{seed} result", new)]
    speaker.returned(f"{seed} resume")
    heard = await speaker.say(context, 4, session=f"{seed} resume", pauses=False)
    return {"value": heard.first, "cached": heard.cached, "of": len(context)}


async def agents(speaker: Speaker, *, sessions: str, pressure: float) -> Measured:
    """The sessions of a file, all at once; tools sleep as long as the file says. The value is the mean completion."""
    plans = read(sessions)
    begun = perf_counter()
    ended = await asyncio.gather(*(_session(speaker, plan) for plan in plans))
    total = {name: sum(one[name] for one in ended) for name in ("prompt", "reused", "recomputed", "said")}
    jcts = [one["jct"] for one in ended]
    firsts = [first for one in ended for first in one["firsts"]]
    mean = sum(jcts) / len(jcts)
    spent = {"whole_s": perf_counter() - begun, "pressure": pressure}
    return {"value": mean, "jcts": jcts, "firsts": firsts, **spent, **total}


Measure = Callable[..., Awaitable[Measured]]
MEASURES: dict[str, Measure] = {"prefill": prefill, "decode": decode, "resume": resume, "agents": agents}


def steps(answers: Sequence[Heard], begin: float, end: float) -> list[float]:
    """Milliseconds a token, from each arrival in the window to the next of the same answer."""
    found = []
    for one in answers:
        marks = [(time, count) for time, count in zip(one.times, one.counts, strict=True) if begin <= time <= end]
        for (before, less), (after, more) in pairwise(marks):
            if more > less:
                found.append(round((after - before) / (more - less) * 1000, 4))
    return found


def read(sessions: str) -> list[dict[str, Any]]:
    """The sessions of a file."""
    found: list[dict[str, Any]] = json.loads(Path(sessions).read_text(encoding="utf-8"))["sessions"]
    return found


async def _session(speaker: Speaker, plan: dict[str, Any]) -> Measured:
    """One agent, call by call. What it said goes into its next prompt, so that all lengths are those of the trace.

    Recomputed is what of a prompt the session's last call had computed or said, and was not found.
    """
    await asyncio.sleep(plan["at"])
    context: list[int] = []
    found: Measured = {"prompt": 0, "reused": 0, "recomputed": 0, "said": 0, "firsts": []}
    begun = perf_counter()
    for number, call in enumerate(plan["calls"]):
        known = min(call["keep"], len(context))
        context = [*context[:known], *call["add"]]
        last = number == len(plan["calls"]) - 1
        heard = await speaker.say(context, call["say"], session=plan["name"], pauses=not last)
        cached = heard.cached or 0
        found["prompt"] += len(context)
        found["reused"] += cached
        found["recomputed"] += max(0, known - 1 - cached) + heard.recomputed
        found["said"] += len(heard.tokens)
        if number:
            found["firsts"].append(heard.first)
        context += heard.tokens
        if not last:
            await asyncio.sleep(call["pause"])
            speaker.returned(plan["name"])
    return found | {"jct": perf_counter() - begun}
