"""Measures what steps and copies cost on this engine and machine, and fits the costs that policies read.

Prompts of several lengths behind contexts of several lengths, steps in which several turns decode, copies to host
memory and to a disk and back: each at its best of a few runs, because what else the machine does is not to be fitted.
All are run in turn, round by round, so that a busy moment spoils one run of each and not all runs of one; the first
round only warms up. More work is never done sooner, so what took longer than something larger was disturbed and counts
as the larger. Time is bounded: rounds end with it, and on a slow machine the largest pieces of work are left out.
What was measured stays in the file beside what was fitted, with how far runs lay apart.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from ..kvstore import RAW, root
from ..kvstore.record import Block, links, pack, unpack
from ..kvstore.record import Link as Chained
from ..kvstore.tiers import DiskTier, HostTier, Tier
from ..scheduler.costs import Costs, Link
from .engines import Paced, StepEngine
from .learnt import FORMAT

TOKENS = (16, 64, 256, 512)
BEHIND = (0, 512, 2048)
TURNS = (1, 2, 4, 8)
COPIED = (64, 512, 2048)
_FIGURES = ("step_s", "token_s", "pair_s", "turn_s", "seen_s")
BUSY = 0.25
"""Where runs of the same lie so far apart something else has run beside them."""
POOL_TOKENS = 17_408
"""Room for eight turns behind the longest of these contexts."""


@dataclass(frozen=True, slots=True)
class Effort:
    """So many runs of each, or so many seconds: whichever is over first. Half of them are for copies."""

    runs: int = 5
    seconds: float = 90.0


_DEFAULT = Effort()


@dataclass(frozen=True, slots=True)
class Stepped:
    """A step that was measured: pieces of prompts as (tokens, behind), turns that decode and what they look back at."""

    prompts: tuple[tuple[int, int], ...]
    turns: int
    seen: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Copied:
    """A context that was copied to a tier and back."""

    tier: str
    tokens: int
    out_s: float
    back_s: float


class Tried(StepEngine, Protocol):
    """An engine that computes steps for the sake of how long they take, while it has nothing else to do."""

    def trial(self, pieces: Sequence[tuple[int, int]]) -> None:
        """A step of so many tokens behind so many others, for each of some turns."""
        ...


@dataclass(frozen=True, slots=True)
class Rounds:
    """What pieces of work took: those that there was time for, each the seconds of its runs."""

    taken: tuple[tuple[float, ...], ...]

    @property
    def best(self) -> tuple[float, ...]:
        """Of each its quickest run."""
        return tuple(map(min, self.taken))

    @property
    def apart(self) -> float:
        """By what share the middle run of a piece of work lies above its quickest, in the middle of all."""
        each = sorted(median(runs) / min(runs) - 1 for runs in self.taken)
        return each[len(each) // 2] if each else 0.0


def rounds(works: Sequence[Callable[[], object]], effort: Effort, clock: Callable[[], float]) -> Rounds:
    """Run these, from small to large, round by round. The first warms up, and says how many there is time for."""
    start = last = clock()
    until = start + effort.seconds / 2
    count = 0
    for work in works:
        work()
        count += 1
        now = clock()
        # The next may be four times as large; and all of them are to be run once more at least.
        if now - start + 4 * (now - last) > effort.seconds / 4:
            break
        last = now
    taken: list[list[float]] = [[] for _ in range(count)]
    for _ in range(effort.runs):
        for work, runs in zip(works[:count], taken, strict=True):
            begun = clock()
            work()
            runs.append(clock() - begun)
        if clock() > until:
            break
    return Rounds(tuple(map(tuple, taken)))


def steps(engine: Tried, *, clock: Callable[[], float], effort: Effort = _DEFAULT) -> tuple[list[Stepped], float]:
    """Measure steps of prompts, and steps in which turns decode; with it, how far runs lay apart."""
    pool = engine.room // len(engine.groups) * engine.page
    longest = min(engine.longest, pool)
    contexts = sorted({min(behind, longest // 2 // engine.page * engine.page) for behind in BEHIND})
    wanted = [[(n, behind)] for behind in contexts for n in TOKENS if behind + n <= longest]
    wanted += [[(1, b)] * n for b in contexts[1:] for n in TURNS if n * (b + engine.page) <= pool]
    wanted.sort(key=lambda pieces: (sum(n for n, _ in pieces), sum(behind for _, behind in pieces)))
    run = rounds([partial(engine.trial, pieces) for pieces in wanted], effort, clock)
    found = [_stepped(pieces, seconds) for pieces, seconds in zip(wanted, run.best, strict=False)]
    return undisturbed(found), run.apart


def undisturbed(stepped: Sequence[Stepped]) -> list[Stepped]:
    """The same, each at the time of the quickest that does at least as much of the same kind."""
    return [replace(one, seconds=min(more.seconds for more in stepped if _covers(more, one))) for one in stepped]


async def copies(
    engine: StepEngine, tiers: Sequence[Tier], *, clock: Callable[[], float], effort: Effort = _DEFAULT
) -> list[Copied]:
    """Measure copies of pages to these tiers and back, as a mover makes them."""
    found = []
    seal = engine.seal("default", engine.fingerprint, RAW)
    sizes = [tokens for tokens in COPIED if tokens <= engine.page * engine.room]
    until = clock() + effort.seconds / 2
    for tier in tiers:
        taken: dict[int, list[tuple[float, float]]] = {tokens: [] for tokens in sizes}
        for run in range(effort.runs + 1):
            for tokens in sizes:
                chain = links(range(tokens), engine.page, root(model=f"run {run} of {tokens}"))
                begun = clock()
                await _store(engine, tier, chain, seal.digest)
                stored = clock()
                await _fetch(engine, tier, chain)
                taken[tokens].append((stored - begun, clock() - stored))
            if run and clock() > until:
                break
        least_out = least_back = inf
        for tokens in reversed(sizes):  # a smaller copy takes no longer than a larger one
            least_out = min(least_out, *(out for out, _ in taken[tokens][1:]))
            least_back = min(least_back, *(back for _, back in taken[tokens][1:]))
            found.append(Copied(tier.name, tokens, least_out, least_back))
    return found


def fit(stepped: Sequence[Stepped], copied: Sequence[Copied], *, chunk: int, source: str) -> Costs:
    """The costs that come closest to what was measured, in relative terms, none of them negative."""
    rows = [
        (1.0, sum(n for n, _ in s.prompts), sum(n * (b + n / 2) for n, b in s.prompts), s.turns, s.seen)
        for s in stepped
    ]
    step, token, pair, turn, seen = _least([list(map(float, row)) for row in rows], [s.seconds for s in stepped])
    ways = {}
    for tier in dict.fromkeys(each.tier for each in copied):
        own = [each for each in copied if each.tier == tier]
        sizes = [[1.0, float(each.tokens)] for each in own]
        start_out, out = _least(sizes, [each.out_s for each in own])
        start_back, back = _least(sizes, [each.back_s for each in own])
        ways[tier] = Link(max(start_out, start_back), out, back)
    return Costs(step, token, pair, turn, seen, links=ways, chunk=chunk, source=source)


def off(costs: Costs, stepped: Sequence[Stepped]) -> float:
    """By what share the fitted costs are off in the middle of what was measured."""
    wrong = sorted(abs(costs.step(one.prompts, one.turns, one.seen) / one.seconds - 1) for one in stepped)
    return wrong[len(wrong) // 2] if wrong else 0.0


def calibrate(
    engine: Tried, *, near: Path, clock: Callable[[], float], effort: Effort = _DEFAULT, machine: str = ""
) -> dict[str, Any]:
    """All of it, as plain data for a file. The disk is measured in a folder of its own in `near`, which it leaves."""
    stepped, apart = steps(engine, clock=clock, effort=effort)

    async def both() -> list[Copied]:
        with tempfile.TemporaryDirectory(dir=near) as folder:
            tiers: list[Tier] = [HostTier(verify=False), DiskTier.open(Path(folder))]
            try:
                return await copies(engine, tiers, clock=clock, effort=effort)
            finally:
                for tier in tiers:
                    await tier.aclose()

    copied = asyncio.run(both())
    chunk = engine.pace.most if isinstance(engine, Paced) else max(TOKENS)
    costs = fit(stepped, copied, chunk=chunk, source=f"{engine.name} on {machine or 'this machine'}")
    return {
        "format": FORMAT,
        "costs": costs.data(),
        "off": off(costs, stepped),
        "apart": apart,
        "steps": [{"prompts": s.prompts, "turns": s.turns, "seen": s.seen, "seconds": s.seconds} for s in stepped],
        "copies": [{"tier": c.tier, "tokens": c.tokens, "out_s": c.out_s, "back_s": c.back_s} for c in copied],
    }


def told(found: dict[str, Any]) -> str:
    """What `calibrate` found, in words."""
    costs = Costs.read(found["costs"])
    lines = [
        f"{costs.source}",
        f"  a step {costs.step_s * 1e3:.2f} ms, a token of a prompt {costs.token_s * 1e6:.1f} us and "
        f"{costs.pair_s * 1e9:.2f} ns for each that it looks back at",
        f"  a turn that decodes {costs.turn_s * 1e3:.2f} ms and {costs.seen_s * 1e9:.1f} ns for each token behind it",
    ]
    lines += [
        f"  {tier}: {link.start_s * 1e3:.2f} ms, {link.out_s * 1e6:.1f} us a token there, {link.back_s * 1e6:.1f} back"
        for tier, link in costs.links.items()
    ]
    lines.append(f"  half of the {len(found['steps'])} steps are less than {found['off']:.0%} off")
    if found["apart"] > BUSY:
        lines.append(
            f"  runs of the same lay {found['apart']:.0%} apart: something else runs here, measure again when it rests"
        )
    return "\n".join(lines)


def literal(costs: Costs) -> str:
    """As `scheduler.costs.TYPICAL` is written: two digits of each figure."""
    links = ", ".join(
        f'"{tier}": Link({link.start_s:.1e}, {link.out_s:.1e}, {link.back_s:.1e})' for tier, link in costs.links.items()
    )
    figures = "\n".join(f"    {name}={getattr(costs, name):.1e}," for name in _FIGURES)
    return (
        f"TYPICAL = Costs(\n{figures}\n    links=MappingProxyType({{{links}}}),\n"
        '    source="a small model on two cores: in the place of what was not measured",\n)'
    )


def _stepped(pieces: Sequence[tuple[int, int]], seconds: float) -> Stepped:
    if pieces[0][0] > 1:
        return Stepped(tuple(pieces), 0, 0, seconds)
    return Stepped((), len(pieces), sum(behind for _, behind in pieces), seconds)


def _covers(more: Stepped, one: Stepped) -> bool:
    if not one.prompts or not more.prompts:
        return not (one.prompts or more.prompts) and more.turns >= one.turns and more.seen >= one.seen
    (tokens, behind), (most, far) = one.prompts[0], more.prompts[0]
    return most >= tokens and far >= behind


async def _store(engine: StepEngine, tier: Tier, chain: Sequence[Chained], seal: bytes) -> None:
    blocks = (
        Block(link.name, link.parent, link.tokens, seal, engine.read(page, len(link.tokens)))
        for page, link in enumerate(chain)
    )
    await tier.put({block.name: pack(block) for block in blocks})


async def _fetch(engine: StepEngine, tier: Tier, chain: Sequence[Chained]) -> None:
    records = await tier.get([link.name for link in chain])
    for page, link in enumerate(chain):
        engine.write(page, len(link.tokens), unpack(records[link.name], verified=True).payload)


def _least(rows: Sequence[Sequence[float]], seconds: Sequence[float]) -> list[float]:
    """Factors, none negative, with the least sum of squared relative errors: descent along one after the other."""
    count = len(rows[0]) if rows else 0
    scaled = [[each / s for each in row] for row, s in zip(rows, seconds, strict=True)]
    norms = [sum(row[at] ** 2 for row in scaled) for at in range(count)]
    factors = [0.0] * count
    left = [1.0] * len(scaled)  # what is not explained of each second that was measured
    for _ in range(20_000):
        moved = 0.0
        for at in range(count):
            if norms[at] <= 0:
                continue
            step = sum(row[at] * rest for row, rest in zip(scaled, left, strict=True)) / norms[at]
            step = max(step, -factors[at])
            if step:
                factors[at] += step
                left = [rest - step * row[at] for row, rest in zip(scaled, left, strict=True)]
                moved = max(moved, step * step * norms[at])
        if moved < 1e-18:
            break
    return factors
