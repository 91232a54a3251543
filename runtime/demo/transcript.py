"""A live run as a transcript, and the same transcript under another policy or in another pool.

Everything comes from the journal: the prompts as tokens, what was said, how long each pause was. A replay sends the
same tokens through the same model and pauses for as long; only the decisions may differ.
Tokens are counted where rows enter the forward pass.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...scheduler import Closed, ProgramId, named
from ..engines.torch.engine import TorchEngine
from ..engines.torch.model import Model
from ..loop import Loop
from ..request import Request
from ..sampling import Sampling
from ..ticket import Ended


@dataclass(slots=True)
class Said:
    """One turn of a transcript: its prompt, its answer, and the pause before it."""

    branch: str
    root: str
    tokens: tuple[int, ...]
    pause: float
    said: list[int] = field(default_factory=list)
    ended: float = 0.0
    paused: bool = False


Transcript = dict[str, list[Said]]
"""The turns of each program, in order."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What a run cost."""

    policy: str
    pool_tokens: int
    turns: int
    prompt_tokens: int
    reused_tokens: int
    computed_tokens: int
    """Rows that entered the forward pass, said tokens included."""
    wall_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both policies in one pool."""

    pool_tokens: int
    ours: Tally
    theirs: Tally

    @property
    def ratio(self) -> float:
        """Tokens that `forgetful` computes for one of ours."""
        return self.theirs.computed_tokens / self.ours.computed_tokens


def read_transcript(journal: Path) -> Transcript:
    """The transcript in a journal. The first turn's pause is the time from the start of the run."""
    known: dict[str, Said] = {}
    programs: Transcript = {}
    with journal.open(encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            record = json.loads(line)
            _take(record["event"], record["at"], known, programs)
    # A turn that was refused or cancelled said nothing: there is nothing to replay.
    return {program: kept for program, turns in programs.items() if (kept := [turn for turn in turns if turn.said])}


def _take(event: dict[str, Any], at: float, turns: dict[str, Said], programs: Transcript) -> None:
    match event["kind"]:
        case "Arrived":
            before = programs.setdefault(event["program"], [])
            pause = at - before[-1].ended if before else at
            turn = Said(event["branch"], event["root"], tuple(event["tokens"]), pause)
            turns[event["turn"]] = turn
            before.append(turn)
        case "Stepped":
            for progress in event["progress"]:
                turns[progress["turn"]].said.extend(progress["said"])
        case "Paused" | "Finished" as kind:
            turns[event["turn"]].ended = at
            turns[event["turn"]].paused = kind == "Paused"


def play(model: Model, policy: str, transcript: Transcript, *, pool_tokens: int) -> Tally:
    """The transcript once more, under `policy`, in a pool of its own."""
    before = model.rows
    with Loop(TorchEngine(model, pool_tokens=pool_tokens), named(policy)) as loop:
        return asyncio.run(_play(loop, transcript, model, before))


async def _play(loop: Loop, transcript: Transcript, model: Model, before: int) -> Tally:
    clock = asyncio.get_running_loop()
    start = clock.time()
    reused = 0

    async def one(program: str, turns: list[Said]) -> None:
        nonlocal reused
        for turn in turns:
            await asyncio.sleep(turn.pause)
            tools = ("tool",) if turn.paused else ()
            request = Request(
                program=program,
                branch=turn.branch,
                tenant=turn.root,  # equal roots share, others do not: that is all that matters here
                # What was said is sent along with the prompt, all but its last token: the same rows enter the forward
                # pass as when it was said token by token, in fewer steps.
                tokens=(*turn.tokens, *turn.said[:-1]),
                sampling=Sampling(max_tokens=1),
                tools_called=lambda text, reason, tools=tools: tools,  # type: ignore[misc]
                forced=(turn.said[-1],),
            )
            async for chunk in loop.submit(request):
                if isinstance(chunk, Ended):
                    reused += chunk.facts.reused_tokens
        loop.tell(Closed(ProgramId(program)))

    await asyncio.gather(*(one(program, turns) for program, turns in transcript.items()))
    turns = [turn for all_turns in transcript.values() for turn in all_turns]
    return Tally(
        policy=loop.kernel.policy.name,
        pool_tokens=loop.kernel.books.room * loop.kernel.books.page,
        turns=len(turns),
        prompt_tokens=sum(len(turn.tokens) for turn in turns),
        reused_tokens=reused,
        computed_tokens=model.rows - before,
        wall_s=clock.time() - start,
    )
