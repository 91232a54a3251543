"""How long tools and people take, where a trace does not say: published distributions, drawn with a seed.

Sources, as far as their figures are public: AIPerf's manifest for agentic coding (70 % of the delays are a tool's, with
median 2.0 s and mean 5.0 s, the others a person's, median 15 s and mean 30 s); SWE-agent's demonstration trajectories
(shell tools, p50 0.24 s, p90 0.79 s, 40 commands); TraceLab (arXiv 2606.30560, CC BY 4.0: Claude Code's tools have a
median of 0.129 s, 70 % end within 1 s and 4.9 % take more than a minute; Codex's have a median of 0.626 s, 88 % within
10 s and 3.1 % more than a minute); kv-cache-tester's Claude Code sessions (tools with median 9 s above a floor of 3 s,
which is the proxy's and the permission prompt's; people with p50 122 s and p90 1414 s).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from random import Random

Draw = Callable[[Random], float]
_P90 = 1.2815515655446004  # of the standard normal distribution


def by_mean(median: float, mean: float) -> Draw:
    """Lognormal."""
    sigma = math.sqrt(2 * math.log(mean / median))
    return lambda random: random.lognormvariate(math.log(median), sigma)


def by_p90(median: float, p90: float) -> Draw:
    """Lognormal."""
    sigma = math.log(p90 / median) / _P90
    return lambda random: random.lognormvariate(math.log(median), sigma)


def tailed(median: float, long: float, share: float, *, short: float) -> Draw:
    """As often as `share` says a Pareto tail beyond a minute, of mean `long`; else lognormal with this median, of
    which a share of `short` lies below ten times that."""
    sigma = math.log(10) / _quantile(short)
    shape = long / (long - 60.0)
    return lambda random: (
        60.0 * random.paretovariate(shape)
        if random.random() < share
        else min(60.0, random.lognormvariate(math.log(median), sigma))
    )


def floored(floor: float, draw: Draw) -> Draw:
    """What is drawn, above a floor."""
    return lambda random: floor + draw(random)


def _quantile(share: float) -> float:
    """Of the standard normal distribution, by halving."""
    low, high = -8.0, 8.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if 0.5 * math.erfc(-middle / math.sqrt(2)) < share else (low, middle)
    return low


TOOLS: Mapping[str, Draw] = {
    "agentic": by_mean(2.0, 5.0),
    "shell": by_p90(0.24, 0.79),
    "claude": tailed(0.129, 290.0, 0.049, short=0.76),
    "codex": tailed(0.626, 190.0, 0.031, short=0.86),
    "proxied": floored(3.0, by_p90(6.0, 66.0)),
}
"""Of one tool call, in seconds."""

PEOPLE: Mapping[str, Draw] = {
    "agentic": by_mean(15.0, 30.0),
    "proxied": by_p90(122.0, 1414.0),
}
"""Between an answer and what a person writes next."""
