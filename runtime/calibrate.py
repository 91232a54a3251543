"""Measures what steps and copies cost on this engine and machine, and fits the costs that policies read.

Prompts of several lengths behind contexts of several lengths, steps in which several turns decode, copies to host
memory and to a disk and back: each at its best of a few runs, because what else the machine does is not to be fitted.
What was measured stays in the file beside what was fitted, so that anybody can see how well it fits.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ..kvstore import RAW, root
from ..kvstore.record import Block, links, pack, unpack
from ..kvstore.record import Link as Chained
from ..kvstore.tiers import DiskTier, HostTier, Tier
from ..scheduler.costs import Costs, Link
from .engines import StepEngine

FORMAT = 1
TOKENS = (16, 64, 256, 512)
BEHIND = (0, 512, 2048)
TURNS = (1, 2, 4, 8)
COPIED = (64, 512, 2048)
POOL_TOKENS = 17_408
"""Room for eight turns behind the longest of these contexts."""


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


def steps(engine: Tried, *, clock: Callable[[], float], runs: int = 3) -> list[Stepped]:
    """Measure steps of prompts, and steps in which turns decode."""
    pool, found = engine.room // len(engine.groups) * engine.page, []
    longest = min(engine.longest, pool)
    contexts = sorted({min(behind, longest // 2 // engine.page * engine.page) for behind in BEHIND})
    for behind in contexts:
        for tokens in TOKENS:
            if behind + tokens <= longest:
                pieces = [(tokens, behind)]
                seconds = _best(partial(engine.trial, pieces), runs, clock)
                found.append(Stepped(tuple(pieces), 0, 0, seconds))
    for behind in contexts[1:]:
        for turns in TURNS:
            if turns * (behind + engine.page) <= pool:
                seconds = _best(partial(engine.trial, [(1, behind)] * turns), runs, clock)
                found.append(Stepped((), turns, turns * behind, seconds))
    return found


async def copies(
    engine: StepEngine, tiers: Sequence[Tier], *, clock: Callable[[], float], runs: int = 3
) -> list[Copied]:
    """Measure copies of pages to these tiers and back, as a mover makes them."""
    found = []
    seal = engine.seal("default", engine.fingerprint, RAW)
    for tier in tiers:
        for tokens in COPIED:
            if tokens > engine.page * engine.room:
                continue
            out = back = float("inf")
            for run in range(runs):
                chain = links(range(tokens), engine.page, root(model=f"run {run}"))
                begun = clock()
                await _store(engine, tier, chain, seal.digest)
                stored = clock()
                await _fetch(engine, tier, chain)
                out, back = min(out, stored - begun), min(back, clock() - stored)
            found.append(Copied(tier.name, tokens, out, back))
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
    engine: Tried, *, near: Path, clock: Callable[[], float], runs: int = 3, machine: str = ""
) -> dict[str, Any]:
    """All of it, as plain data for a file. The disk is measured in a folder of its own in `near`, which it leaves."""
    stepped = steps(engine, clock=clock, runs=runs)

    async def both() -> list[Copied]:
        with tempfile.TemporaryDirectory(dir=near) as folder:
            tiers: list[Tier] = [HostTier(verify=False), DiskTier.open(Path(folder))]
            try:
                return await copies(engine, tiers, clock=clock, runs=runs)
            finally:
                for tier in tiers:
                    await tier.aclose()

    copied = asyncio.run(both())
    costs = fit(stepped, copied, chunk=max(TOKENS), source=f"{engine.name} on {machine or 'this machine'}")
    return {
        "format": FORMAT,
        "costs": costs.data(),
        "off": off(costs, stepped),
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
    return "\n".join([*lines, f"  half of the {len(found['steps'])} steps are less than {found['off']:.0%} off"])


def read_costs(path: Path) -> Costs:
    """What `sostenuto calibrate` wrote. ValueError, with what is wrong, for another file; OSError for none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = data["format"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no file of costs: make one with `sostenuto calibrate --out {path}`") from error
    if found != FORMAT:
        raise ValueError(f"{path}: found costs of format {found!r}; expected {FORMAT}: calibrate anew")
    try:
        return Costs.read(data["costs"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: {error}: calibrate anew") from error


def _best(work: Callable[[], object], runs: int, clock: Callable[[], float]) -> float:
    taken = []
    for _ in range(runs + 1):  # the first one warms up
        begun = clock()
        work()
        taken.append(clock() - begun)
    return min(taken[1:])


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
