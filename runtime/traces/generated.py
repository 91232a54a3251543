"""Workloads out of published distributions, drawn with a seed: as many sessions as are asked for, made as they begin.

`coding` has AIPerf's manifest for agentic coding (new tokens a turn: median 4,000, mean 6,000; answers: median 800,
mean 1,000; a context begins anew in 5 % of the turns; two layers of 32 k and 10 k tokens that sessions share; 70 % of
the pauses are a tool's) with as many turns a session as kv-cache-tester's have (p50 37, p90 144).
`shell` is a small coding agent, as mini-swe-agent's recordings show it (turns: p50 14, 30 at most; a first prompt of
some 3,000 tokens) with SWE-agent's short commands. `claude` and `codex` have TraceLab's tools, with their long tails,
and answers and new tokens as kv-cache-tester's sessions (answers: p50 218, p90 893; new tokens: p50 704, p90 4,160).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random

from ...scheduler.simulator import Call, Session, Workload
from .building import TOOL, Fresh
from .pauses import PEOPLE, TOOLS, Draw, by_mean, by_p90

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Mix:
    """What a kind of sessions is drawn from; tokens and turns."""

    shared: tuple[int, ...]
    """The layers with which sessions begin, each shared by fewer of them."""
    first: Draw
    new: Draw
    out: Draw
    turns: Draw
    tool: str
    person: str = "agentic"
    asks: float = 0.0
    """The share of the turns that end with an answer to a person."""
    resets: float = 0.0
    """The share of the turns before which the context begins anew, but for what is shared."""
    most: int = 200_000
    """Tokens at which it does so too."""
    turns_most: int = 400


_CLAUDE = Mix(
    shared=(15_000,),
    first=by_mean(3000, 6000),
    new=by_p90(704, 4160),
    out=by_p90(218, 893),
    turns=by_p90(12, 40),
    tool="claude",
    asks=0.1,
    resets=0.02,
)
MIXES: Mapping[str, Mix] = {
    "coding": Mix(
        shared=(32_000, 10_000),
        first=by_mean(4000, 6000),
        new=by_mean(4000, 6000),
        out=by_mean(800, 1000),
        turns=by_p90(37, 144),
        tool="agentic",
        asks=0.3,
        resets=0.05,
    ),
    "shell": Mix(
        shared=(1500,),
        first=by_mean(1200, 1600),
        new=by_mean(150, 300),
        out=by_mean(90, 120),
        turns=by_p90(14, 26),
        tool="shell",
        turns_most=30,
    ),
    "claude": _CLAUDE,
    "codex": replace(_CLAUDE, shared=(8000,), first=by_mean(2000, 4000), tool="codex"),
}
SHARES = 8
"""How many variants there are of each layer below the first."""


@dataclass(frozen=True, slots=True)
class Generated:
    """The sessions of a mix. Going through them again makes the same ones; a session costs memory while it lasts."""

    mix: Mix
    count: int
    granule: int
    seed: int
    spread_s: float = 0.0
    """They begin within so many seconds, at random; 0: one after the other, as users come free."""

    def __iter__(self) -> Iterator[Session]:
        random = Random(f"sessions {self.seed}")
        fresh = Fresh()
        at = 0.0
        for number in range(self.count):
            if self.spread_s:
                at += random.expovariate(self.count / self.spread_s)
            yield Session(f"g{number}", tuple(self._calls(random, fresh)), at=at)

    def _calls(self, random: Random, fresh: Fresh) -> Iterator[Call]:
        mix = self.mix
        base = self._shared(random)
        turns = max(1, min(mix.turns_most, round(mix.turns(random))))
        length, said = 0, 0
        for turn in range(turns):
            begins = turn == 0 or length * self.granule > mix.most or random.random() < mix.resets
            add = self._granules((mix.first if turn == 0 else mix.new)(random), fresh)
            if turn == 0:
                keep, add = 0, (*base, *add)
            else:
                keep = len(base) if begins else length + said
            out = max(1, round(mix.out(random)))
            say = fresh.take(-(-out // self.granule))
            length, said = keep + len(add), len(say)
            last = turn == turns - 1
            asks = last or random.random() < mix.asks
            pause = (PEOPLE[mix.person] if asks else TOOLS[mix.tool])(random)
            yield Call(keep, add, say, out, () if asks else (TOOL,), 0.0 if last else pause)

    def _shared(self, random: Random) -> tuple[int, ...]:
        """The layers of a session: names that other sessions have too."""
        names: list[int] = []
        at = 1
        for layer, tokens in enumerate(self.mix.shared):
            variant = random.randrange(SHARES) if layer else 0
            at = at * SHARES + variant
            names += [at << 24 | number for number in range(max(1, tokens // self.granule))]
        return tuple(names)

    def _granules(self, tokens: float, fresh: Fresh) -> tuple[int, ...]:
        return fresh.take(max(1, round(tokens / self.granule)))


def generated(name: str, count: int, granule: int, *, seed: int, spread_s: float = 0.0) -> Workload:
    """So many sessions of a mix. Raises ValueError for one that is not known."""
    if name not in MIXES:
        raise ValueError(f"there is no mix {name!r}: choose one of {', '.join(MIXES)}")
    sessions = Generated(MIXES[name], count, granule, seed, spread_s)
    return Workload(f"generated {name}", sessions, granule, (f"made up, {count} sessions",), timed=spread_s > 0)
