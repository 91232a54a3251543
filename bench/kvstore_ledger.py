"""What the ledger's bookkeeping costs, from a thousand blocks to a million: microseconds and bytes for each block.

python -P -m sostenuto.bench.kvstore_ledger [--blocks 1000 10000 100000 1000000 --order by_cost --json FILE]

The pool is full of cached contexts of 32 blocks. In each round one context is looked up, held and let go, claimed and
given up, then the pages that rank lowest are evicted, and a new context is published in them and closed. Every figure
is the time of one call, divided by the blocks it is about.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from sostenuto.kvstore import BlockHash, Feed, Ledger, PageId, Range, Rank, oldest_first, root
from sostenuto.scheduler import TYPICAL
from sostenuto.scheduler.policies.evict import by_cost, by_next_use, by_priority, stale_first

from .report import machine

SEED = 0
PAGE = 16
LENGTH = 32
"""Blocks of a context."""
VOCABULARY = 50_000
ROOT = root(model="bench")
ORDERS: dict[str, Rank] = {
    "oldest_first": oldest_first,
    "stale_first": stale_first,
    "by_priority": by_priority,
    "by_next_use": by_next_use({}),
    "by_cost": by_cost(TYPICAL),
}


@dataclass(slots=True)
class Context:
    """Where a context lies that was computed and closed."""

    tokens: tuple[int, ...]
    pages: tuple[PageId, ...]


@dataclass(slots=True)
class Times:
    """Microseconds a block, by what was done."""

    of: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def take(self, name: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.of.setdefault(name, []).append((perf_counter() - start) * 1e6 / LENGTH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--order", choices=sorted(ORDERS), default="stale_first")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    info = machine(SEED, 1, packages=("sostenuto",))
    print(info)
    print(f"order {options.order}, {LENGTH} blocks a context, {PAGE} tokens a block; microseconds a block")
    print(f"  {'':<28}{'blocks':>9}{'min':>9}{'p50':>9}{'p99':>9}{'a second':>12}")
    rows: list[dict[str, Any]] = []
    for count in options.blocks:
        rows += _rows(count, _measure(count, options.runs, ORDERS[options.order]))
    few = options.blocks[0]
    told = {f"{name}, with a listener": times for name, times in _measure(few, options.runs, Feed).items()}
    rows += _rows(few, {name: told[name] for name in sorted(told) if name.startswith(("publish", "evict"))})
    sizes = {count: _bytes(count) for count in options.blocks}
    for count, size in sizes.items():
        print(f"  {'bytes of bookkeeping a block':<28}{count:>9}{size:>9.0f}")
    slopes = _slopes(rows, options.blocks[0], options.blocks[-1])
    for name, slope in slopes.items():
        print(f"  {name:<28} costs {slope:.2f} times as much at {options.blocks[-1]} blocks as at {options.blocks[0]}")
    if options.json:
        found = {"machine": info, "order": options.order, "rows": rows, "bytes_per_block": sizes, "slopes": slopes}
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


def _measure(count: int, runs: int, how: Rank | type[Feed]) -> dict[str, list[float]]:
    """Times of `runs` rounds in a pool of `count` blocks, after as many that are not counted, 100 at most."""
    draw = random.Random(SEED)
    feed = Feed() if how is Feed else None
    ledger = Ledger(count, PAGE, rank=stale_first if feed is not None else how)  # type: ignore[arg-type]
    ledger.listen(feed)
    contexts = [_context(ledger, draw, Times()) for _ in range(count // LENGTH)]
    ledger.alloc(ledger.free)  # what does not make a context: the pool is full
    gc.collect()
    times = Times()
    for number in range(-min(runs, 100), runs):
        _round(ledger, draw, contexts, times if number >= 0 else Times())
        if feed is not None:
            feed.drain()
    ledger.check([[page for page in map(PageId, range(count)) if ledger.refs(page)]])
    return times.of


def _round(ledger: Ledger, draw: random.Random, contexts: list[Context], times: Times) -> None:
    with times.take("evict (alloc)"):
        pages = ledger.alloc(LENGTH)
    new = old = _published(ledger, draw, pages, times)
    for _ in range(8):  # those that lost pages, whatever the order, make room in the list for the new one
        at = draw.randrange(len(contexts))
        if len(ledger.match(ROOT, contexts[at].tokens).pages) == LENGTH:
            old = contexts[at]
            break
        contexts[at] = new
    with times.take("match"):
        match = ledger.match(ROOT, old.tokens)
    with times.take("take and drop"):
        ledger.take(match.pages)
        ledger.drop(reversed(match.pages))
    ledger.take(match.pages)
    with times.take("hold and release"):
        ledger.hold("bench", Context(old.tokens, match.pages), until=1.0, budget=ledger.room)
        ledger.release("bench")
    ledger.drop(reversed(match.pages))
    with times.take("retain and forgo"):
        ledger.retain("bench", match.pages, [Range(0, None, 50)])
        ledger.forgo("bench")


def _context(ledger: Ledger, draw: random.Random, times: Times) -> Context:
    return _published(ledger, draw, ledger.alloc(LENGTH), times)


def _published(ledger: Ledger, draw: random.Random, pages: tuple[PageId, ...], times: Times) -> Context:
    tokens = tuple(draw.choices(_tokens, k=LENGTH * PAGE))
    parent = ROOT
    with times.take("publish"):
        for depth, page in enumerate(pages):
            name = ledger.publish(page, parent, tokens[depth * PAGE : (depth + 1) * PAGE], depth=depth)
            parent = name or BlockHash(b"")
    with times.take("drop"):
        ledger.drop(reversed(pages))
    return Context(tokens, pages)


_tokens: Sequence[int] = range(VOCABULARY)


def _bytes(count: int) -> float:
    """Bytes for a block of a full ledger; the numbers of its tokens are counted too, each as an object of its own."""
    draw = random.Random(SEED)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        ledger = Ledger(count, PAGE)
        for _ in range(count // LENGTH):
            _context(ledger, draw, Times())
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()


def _rows(count: int, found: dict[str, list[float]]) -> list[dict[str, Any]]:
    rows = []
    for name, times in found.items():
        ordered = sorted(times)
        p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
        row = {"name": name, "blocks": count, "n": len(times), "us_min": ordered[0], "us_p50": p50, "us_p99": p99}
        rows.append(row)
        print(f"  {name:<28}{count:>9}{ordered[0]:>9.2f}{p50:>9.2f}{p99:>9.2f}{1e6 / p50:>12.0f}  n={len(times)}")
    return rows


def _slopes(rows: Sequence[dict[str, Any]], few: int, many: int) -> dict[str, float]:
    at: Callable[[int], dict[str, float]] = lambda count: {  # noqa: E731
        row["name"]: row["us_p50"] for row in rows if row["blocks"] == count
    }
    return {name: cost / at(few)[name] for name, cost in at(many).items() if name in at(few)}


if __name__ == "__main__":
    main()
