"""The same work under both policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...scheduler import named
from ..engines.torch.model import Model
from ..errors import Refused
from ..opening import Wanted, open_engine
from .agents import Run
from .live import Live
from .tell import say
from .transcript import Comparison, Tally, play, read_transcript


def compare(model: Model, journal: Path, pool: int) -> tuple[Comparison, ...]:
    """Both policies on the run's own transcript, over a sweep of pools from its own to one that holds everything."""
    transcript = read_transcript(journal)
    if not transcript:
        raise Refused(f"no agent could run in a pool of {pool} tokens: give it more with --pool-tokens")
    page = model.shape.page
    ends = [max(len(turn.tokens) + len(turn.said) for turn in turns) for turns in transcript.values()]
    everything = sum(-(-end // page) + 2 for end in ends) * page
    say("\nThe same transcript with the same pauses under both policies; tokens computed, counted where rows enter the")
    say("forward pass:")
    say(f"{'pool':>10}{'sostenuto':>12}{'forgetful':>12}{'ratio':>8}")
    sweep = []
    for size in sorted({pool, pool * 5 // 4 // page * page, everything}):
        ours = play(model, "sostenuto", transcript, pool_tokens=size)
        theirs = play(model, "forgetful", transcript, pool_tokens=size)
        one = Comparison(size, ours, theirs)
        sweep.append(one)
        note = "  <- the run above" if size == pool else "  everything fits" if size == everything else ""
        say(f"{size:>10}{ours.computed_tokens:>12}{theirs.computed_tokens:>12}{one.ratio:>8.2f}{note}")
    return tuple(sweep)


def beside(live: Live, runs: Sequence[Run], wall: float, wanted: Wanted) -> Comparison:
    """The agents once more on the same server under the other policy, as a tenant that shares nothing with the first.

    Only for servers that salt by tenant, else the second run would live on what the first has cached. What the server
    says it found cached is taken at its word; a live model need not say the same twice.
    """
    other = replace(live, policy=named("sostenuto" if live.policy.name == "forgetful" else "forgetful"))
    say(f"\nThe same agents on the same server under {other.policy.name} ...")
    engine = open_engine(wanted)
    again, _, took = other.run(engine, quiet=True, tenant=f"demo-{other.policy.name}")
    pool = engine.room * engine.page
    first, second = _tally(live.policy.name, runs, wall, pool), _tally(other.policy.name, again, took, pool)
    return Comparison(pool, second, first) if live.policy.name == "forgetful" else Comparison(pool, first, second)


def _tally(policy: str, runs: Sequence[Run], wall: float, pool: int) -> Tally:
    turns = [turn for run in runs for turn in run.turns]
    return Tally(
        policy=policy,
        pool_tokens=pool,
        turns=len(turns),
        prompt_tokens=sum(turn["prompt_tokens"] for turn in turns),
        reused_tokens=sum(turn["reused_tokens"] for turn in turns),
        computed_tokens=sum(turn["computed_tokens"] + turn["said_tokens"] for turn in turns),
        wall_s=wall,
    )
