"""What coming back from host memory and from a disk costs, beside computing it anew and beside what those could do.

Part of `make bench-kvstore`. The limits are the same bytes copied in memory, by one thread as the mover is one, and
the same files read with `readinto`; each call and its limit are taken in turns. Processor time tells what a call costs
where others compute meanwhile.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch

from sostenuto.kvstore import BlockHash, Seal, Shape, root
from sostenuto.kvstore.pages import Pages
from sostenuto.kvstore.record import Block, Link, check, links, pack, unpack
from sostenuto.kvstore.seal import veil
from sostenuto.kvstore.tiers import DiskTier, HostTier, Tier
from sostenuto.runtime.engines.torch.model import Model, Piece

ROOT = root(model="bench")
COPIED, READ = "the same bytes copied in memory by one thread", "the same bytes read from the disk, cold"
Row = dict[str, Any]
Call = Callable[[], Awaitable[None] | None]


def spread(tokens: int, seconds: Sequence[float]) -> Row:
    """How long something took, in microseconds."""
    ordered = sorted(each * 1e6 for each in seconds)
    at = {"us_min": 0, "us_p50": len(ordered) // 2, "us_p99": min(len(ordered) - 1, int(len(ordered) * 0.99))}
    return {"tokens": tokens, "n": len(ordered)} | {name: round(ordered[place], 1) for name, place in at.items()}


@torch.inference_mode()
def recomputed(model: Model, tokens: int) -> float:
    """Microseconds a token of a prefill of so many, in chunks of 512, at the best of two."""
    pages = Pages(model.shape, -(-tokens // model.shape.page))
    ids = torch.randint(100, model.vocab - 100, (tokens,)).tolist()
    times = []
    for _ in range(2):
        begin = perf_counter()
        for start in range(0, tokens, 512):
            part = ids[start : start + 512]
            model.forward([Piece(range(pages.room), start, part, wants=start + len(part) == tokens)], pages)
        times.append(perf_counter() - begin)
    return min(times) / tokens * 1e6


def restored(shape: Shape, tokens: int, runs: int, folder: Path) -> dict[str, Row]:
    """Rows by tier: from there into pages, as a fetch does it, and its limit.

    What lies in host memory is believed, as `host_tokens` has it, then verified as what comes from a disk always is.
    """
    return asyncio.run(_restored(shape, tokens, runs, folder))


async def _restored(shape: Shape, tokens: int, runs: int, folder: Path) -> dict[str, Row]:
    pages = Pages(shape, -(-tokens // shape.page))
    for tensor in (*pages.k, *pages.v):
        tensor.normal_()
    chain, seal = links([at % 1000 for at in range(tokens)], shape.page, ROOT), _seal(shape)
    records = {link.name: pack(_block(link, seal, pages, at)) for at, link in enumerate(chain)}
    size = sum(len(_block(link, seal, pages, at).payload) for at, link in enumerate(chain))
    source, target = (torch.ones(size, dtype=torch.uint8) for _ in range(2))
    threads = torch.get_num_threads()
    tiers: dict[str, Tier] = {
        "restore_host": HostTier(verify=False),
        "restore_host_verified": HostTier(),
        "restore_disk": DiskTier.open(folder),
    }
    found = {}
    for name, tier in tiers.items():
        await tier.put(records)

        async def fetch(tier: Tier = tier) -> None:
            got = await tier.get([link.name for link in chain])
            await asyncio.to_thread(_write, pages, chain, seal, got)

        if name == "restore_disk":
            ours, limit = await _in_turns(runs, [fetch, lambda: _read(folder)], cold=folder)
            found[name] = _row(tokens, size, ours, limit) | {"limit": READ}
        else:
            ours, limit = await _in_turns(runs, [fetch, lambda: _copy(source, target, threads=1)])
            (every,) = await _in_turns(runs, [lambda: _copy(source, target, threads=threads)])
            found[name] = _row(tokens, size, ours, limit) | {"limit": COPIED}
            found[name] |= {"all_threads_bytes_per_s": size / median(wall for wall, _ in every)}
        await tier.aclose()
    return found


def _row(tokens: int, size: int, ours: Sequence[tuple[float, float]], limit: Sequence[tuple[float, float]]) -> Row:
    (wall, processor), (at_most, processor_at_most) = (
        (median(wall for wall, _ in times), median(processor for _, processor in times)) for times in (ours, limit)
    )
    return spread(tokens, [wall for wall, _ in ours]) | {
        "us_per_token": wall * 1e6 / tokens,
        "bytes": size,
        "bytes_per_s": size / wall,
        "limit_bytes_per_s": size / at_most,
        "of_limit": at_most / wall,
        "of_limit_in_processor_time": processor_at_most / processor,
    }


async def _in_turns(runs: int, calls: Sequence[Call], *, cold: Path | None = None) -> list[list[tuple[float, float]]]:
    """Seconds, and those of processors, of each call, after one that does not count.

    Before each, the system is asked to forget what it has read of a folder.
    """
    times: list[list[tuple[float, float]]] = [[] for _ in calls]
    for number in range(-1, runs):
        for call, taken in zip(calls, times, strict=True):
            if cold is not None:
                _forget(cold)
            start = perf_counter(), process_time()
            waiting = call()
            if waiting is not None:
                await waiting
            if number >= 0:
                taken.append((perf_counter() - start[0], process_time() - start[1]))
    return times


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


def _write(pages: Pages, chain: Sequence[Link], seal: Seal, records: Mapping[BlockHash, memoryview]) -> None:
    for page, link in enumerate(chain):
        block = unpack(records[link.name], verified=True)
        check(block, link, seal)
        pages.write(page, len(block.tokens), block.payload)


def _copy(source: torch.Tensor, target: torch.Tensor, *, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    target.copy_(source)
    torch.set_num_threads(before)


def _read(folder: Path) -> None:
    buffer = bytearray(16 << 20)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def _forget(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
