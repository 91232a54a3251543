"""What moving about in a context costs: fork, rollback, and coming back from host memory and from a disk.

make bench-kvstore [ARGS="--tokens 1024 8192 65536 --runs 15 --json FILE"]

Forks and rollbacks are those of the packaged model's geometry, beside a deep copy of a DynamicCache of the same size.
What comes back is real bytes through the real tiers, beside computing it anew, and beside what memory and disk could
do at most: the same bytes copied by torch, and the same bytes read by `readinto`, in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import os
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from transformers import DynamicCache

from sostenuto.kvstore import Branch, Ledger, Seal, Shape, root
from sostenuto.kvstore.pages import Pages
from sostenuto.kvstore.record import Block, Link, links, pack, unpack
from sostenuto.kvstore.seal import veil
from sostenuto.kvstore.tiers import DiskTier, HostTier, Tier
from sostenuto.runtime.engines.torch.model import Model, Piece
from sostenuto.runtime.engines.torch.weights import locate

from .report import machine

SEED = 0
ROOT = root(model="bench")
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 8192, 65536], help="for fork and rollback")
    parser.add_argument("--restored", type=int, nargs="+", default=[1024, 4096], help="for what comes back")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all of it; - prints only that")
    parser.add_argument("--folder", type=Path, help="on the disk to be measured (default: a temporary one)")
    asked = parser.parse_args()
    torch.manual_seed(SEED)
    model = Model.load(locate(None))
    found: dict[str, Any] = {"machine": machine(SEED, torch.get_num_threads()), "runs": asked.runs}
    found["fork"] = [_forked(model.shape, count, asked.runs) for count in asked.tokens]
    found["rollback"] = [_rolled_back(model.shape, count, asked.runs) for count in asked.tokens]
    recompute = _recompute(model, max(asked.restored))
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        for count in asked.restored:
            restored = asyncio.run(_restored(model.shape, count, asked.runs, Path(folder) / str(count)))
            for name, row in restored.items():
                row["recompute_us_per_token"] = recompute
                found.setdefault(name, []).append(row)
    found["limits"] = {
        f"{name}_{row['tokens']}": {"bytes_per_s": row["limit_bytes_per_s"], "of": row["limit"]}
        for name in ("restore_host", "restore_disk")
        for row in found[name]
    }
    if asked.json is not None and str(asked.json) != "-":
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found) if str(asked.json) == "-" else "\n".join(_table(found)))


def _forked(shape: Shape, tokens: int, runs: int) -> Row:
    """A fork, and the first token that the child writes: at most the last page is copied."""
    ledger, parent = _grown(shape, tokens + 1)  # its last page is shared and not full
    pages = Pages(shape, 4)
    copied = 0

    def fork() -> None:
        nonlocal copied
        child = parent.fork()
        growth = child.reserve(1)
        if growth.copy is not None:
            pages.copy(0, 1, growth.copy.tokens)
            copied = growth.copy.tokens * shape.bytes_per_token
        child.close()

    times = _times(runs, fork)
    theirs = _deep_copy(shape, tokens, max(3, runs // 3)) if tokens <= 16_384 else None
    return _row(tokens, times) | {"bytes": copied, "deep_copy_us_p50": theirs, "pages": ledger.room}


def _rolled_back(shape: Shape, tokens: int, runs: int) -> Row:
    """64 tokens given up at the end of a context."""
    _, branch = _grown(shape, tokens)
    more = list(range(64))

    def back() -> None:
        branch.rollback(tokens)

    times = []
    for _ in range(runs + 1):
        branch.reserve(64)
        branch.append(more)
        times += _times(1, back, warm=False)
    return _row(tokens, times[1:]) | {"bytes": 0}


def _grown(shape: Shape, tokens: int) -> tuple[Ledger, Branch]:
    ledger = Ledger(-(-tokens // shape.page) + 8, shape.page)
    branch = Branch(ledger, ROOT)
    branch.reserve(tokens)
    branch.append([at % 1000 for at in range(tokens)])
    return ledger, branch


def _deep_copy(shape: Shape, tokens: int, runs: int) -> float:
    """Microseconds, at the median, of what there is without pages: a copy of everything."""
    cache: Any = DynamicCache()
    size = (1, shape.kv_heads, tokens, shape.head_dim)
    for layer in range(shape.layers):
        cache.update(
            torch.randn(size).to(getattr(torch, shape.dtype)), torch.randn(size).to(getattr(torch, shape.dtype)), layer
        )
    return float(_row(tokens, _times(runs, lambda: copy.deepcopy(cache)))["us_p50"])


@torch.inference_mode()
def _recompute(model: Model, tokens: int) -> float:
    """Microseconds a token of a prefill of so many, in chunks of 512, at the best of three."""
    pages = Pages(model.shape, -(-tokens // model.shape.page) + 1)
    ids = torch.randint(100, model.vocab - 100, (tokens,)).tolist()

    def prefill() -> None:
        for start in range(0, tokens, 512):
            part = ids[start : start + 512]
            model.forward([Piece(range(pages.room), start, part, wants=start + len(part) == tokens)], pages)

    return min(_times(2, prefill)) / tokens * 1e6


async def _restored(shape: Shape, tokens: int, runs: int, folder: Path) -> dict[str, Row]:
    """From a tier to the pages, verified, as a fetch does it; and the same bytes at the speed of memory and disk."""
    room = -(-tokens // shape.page)
    pages = Pages(shape, room)
    pages._all.normal_()
    chain = links([at % 1000 for at in range(tokens)], shape.page, ROOT)
    seal = _seal(shape)
    records = {link.name: pack(_block(link, seal, pages, at)) for at, link in enumerate(chain)}
    size = room * shape.bytes_per_page
    names = [link.name for link in chain]
    host, disk = HostTier(), DiskTier.open(folder)
    found = {}
    for name, tier, cold in (("restore_host", host, False), ("restore_disk", disk, True)):
        await tier.put(records)

        async def fetch(tier: Tier = tier) -> None:
            got = await tier.get(names)
            await asyncio.to_thread(_write, pages, [got[each] for each in names])

        limit = (lambda: _read_all(folder)) if cold else _copying(pages)
        times: list[float] = []
        at_most: list[float] = []
        for _ in range(runs + 1):
            for taken, call in ((times, fetch), (at_most, limit)):
                if cold:
                    _forget(folder)
                taken.append(await _timed(call))
        row = _row(tokens, times[1:])
        row["bytes"] = size
        row["bytes_per_s"] = size / (row["us_p50"] / 1e6)
        row["limit"] = "the same bytes read from the disk, cold" if cold else "the same bytes copied in memory"
        row["limit_bytes_per_s"] = size / sorted(at_most[1:])[len(at_most[1:]) // 2]
        row["of_limit"] = row["bytes_per_s"] / row["limit_bytes_per_s"]
        row["us_per_token"] = row["us_p50"] / tokens
        found[name] = row
        await tier.aclose()
    return found


def _block(link: Link, seal: Seal, pages: Pages, page: int) -> Block:
    return Block(link.name, link.parent, link.tokens, seal.digest, pages.read(page, len(link.tokens)))


def _seal(shape: Shape) -> Seal:
    return Seal(
        model="bench",
        dtype=shape.dtype,
        layers=shape.layers,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        page=shape.page,
        rope="",
        tokenizer="",
        adapter="",
        weights="",
        tenant=veil("default"),
    )


def _write(pages: Pages, records: Sequence[memoryview]) -> None:
    for page, data in enumerate(records):
        block = unpack(data, verified=True)
        pages.write(page, len(block.tokens), block.payload)


def _copying(pages: Pages) -> Callable[[], None]:
    """What memory can do: as many bytes, copied in one piece."""
    target = torch.empty_like(pages._all)

    def copied() -> None:
        target.copy_(pages._all)

    return copied


def _read_all(folder: Path) -> None:
    """What the disk can do: the same files, read in pieces of 16 MiB."""
    buffer = bytearray(16 << 20)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def _forget(folder: Path) -> None:
    """Ask the system to forget what it has read."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


async def _timed(call: Callable[[], Awaitable[None] | None]) -> float:
    start = perf_counter()
    waiting = call()
    if waiting is not None:
        await waiting
    return perf_counter() - start


def _times(runs: int, call: Callable[[], object], *, warm: bool = True) -> list[float]:
    if warm:
        call()
    times = []
    for _ in range(runs):
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return times


def _row(tokens: int, seconds: Sequence[float]) -> Row:
    ordered = sorted(each * 1e6 for each in seconds)
    at = {"us_min": 0, "us_p50": len(ordered) // 2, "us_p99": min(len(ordered) - 1, int(len(ordered) * 0.99))}
    return {"tokens": tokens, "n": len(ordered)} | {name: round(ordered[place], 1) for name, place in at.items()}


def _table(found: dict[str, Any]) -> list[str]:
    lines = [found["machine"], ""]
    for name in ("fork", "rollback"):
        lines.append(f"{name}: microseconds{'':<24}min       p50       p99   n     bytes   deep copy / ours")
        for row in found[name]:
            theirs = row.get("deep_copy_us_p50")
            ratio = "" if theirs is None else f"{theirs / row['us_p50']:>16.0f}"
            lines.append(
                f"  of {row['tokens']:>7,} tokens{'':<14}{row['us_min']:>9.1f} {row['us_p50']:>9.1f} "
                f"{row['us_p99']:>9.1f} {row['n']:>3} {row['bytes']:>9,} {ratio}"
            )
        first, last = found[name][0], found[name][-1]
        slope = (last["us_p50"] - first["us_p50"]) / max(1, last["tokens"] - first["tokens"]) * 1000
        lines += [f"  slope: {slope:.2f} us per 1,000 tokens", ""]
    for name in ("restore_host", "restore_disk"):
        lines.append(f"{name}: microseconds a token{'':<9}p50    anew   anew/ours     MB/s   limit MB/s  of limit")
        lines += [
            f"  of {row['tokens']:>7,} tokens{'':<14}{row['us_per_token']:>9.1f} {row['recompute_us_per_token']:>8.1f} "
            f"{row['recompute_us_per_token'] / row['us_per_token']:>10.0f} {row['bytes_per_s'] / 1e6:>9.0f} "
            f"{row['limit_bytes_per_s'] / 1e6:>11.0f} {row['of_limit']:>9.2f}"
            for row in found[name]
        ]
        lines += [f"  the limit: {found[name][0]['limit']}", ""]
    return lines


if __name__ == "__main__":
    main()
