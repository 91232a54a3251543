"""The figures of a simulation, and what they are relative to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .tally import Tally, quantile

ALPHA = 3.0
"""A job counts for goodput if it is done within so many times its ideal time, MARS's bar (arXiv 2604.26963)."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One policy on one workload. Tokens are those of the trace, times seconds."""

    policy: str
    jobs: int
    jct_mean_s: float
    jct_p50_s: float
    jct_p90_s: float
    jct_p99_s: float
    ttft_resume_p50_s: float
    ttft_resume_p90_s: float
    ttft_resume_p99_s: float
    reused_share: float
    """Of the tokens of all prompts."""
    recomputed_tokens: int
    held_token_s: float
    """Tokens of contexts under holds, times the seconds that they were."""
    moves: int
    moved_tokens: int
    preemptions: int
    refused: int
    goodput: float
    """Share of jobs that were done within alpha times their ideal time; what was refused was not."""
    fairness: float
    """Jain's index over the tenants' mean slowdowns: 1 where all are slowed down alike, 1/n where one bears all."""
    busy_share: float
    """Of the time, how much the device computed."""
    makespan_s: float
    ideal_mean_s: float
    regret: float | None = None
    """How much longer the mean job takes than under the oracle, as a share of that."""


def figures(policy: str, tally: Tally, *, alpha: float = ALPHA) -> Figures:
    """What a run came to."""
    jcts, resumed = sorted(tally.jcts), sorted(tally.resumed)
    pairs = list(zip(tally.jcts, tally.ideals, strict=True))
    in_time = sum(1 for jct, ideal in pairs if jct <= alpha * ideal)
    slow: list[list[float]] = [[] for _ in tally.tenants]
    for (jct, ideal), owner in zip(pairs, tally.owners, strict=True):
        slow[owner].append(jct / ideal if ideal else 1.0)
    asked = len(pairs) + tally.refusals
    return Figures(
        policy=policy,
        jobs=len(jcts),
        jct_mean_s=_mean(jcts),
        jct_p50_s=quantile(jcts, 0.5),
        jct_p90_s=quantile(jcts, 0.9),
        jct_p99_s=quantile(jcts, 0.99),
        ttft_resume_p50_s=quantile(resumed, 0.5),
        ttft_resume_p90_s=quantile(resumed, 0.9),
        ttft_resume_p99_s=quantile(resumed, 0.99),
        reused_share=tally.reused / tally.prompt if tally.prompt else 0.0,
        recomputed_tokens=tally.recomputed,
        held_token_s=tally.held_token_s,
        moves=tally.moves,
        moved_tokens=tally.moved_tokens,
        preemptions=tally.preemptions,
        refused=tally.refusals,
        goodput=in_time / asked if asked else 0.0,
        fairness=jain([_mean(each) for each in slow]),
        busy_share=tally.busy / tally.seconds if tally.seconds else 0.0,
        makespan_s=tally.seconds,
        ideal_mean_s=_mean(tally.ideals),
    )


def jain(values: Sequence[float]) -> float:
    """(sum x)^2 / (n sum x^2), Jain's index of fairness (Jain, Chiu and Hawe, DEC-TR-301, 1984); 1 for none."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
