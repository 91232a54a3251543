"""What moving about in a context costs: fork, rollback, and coming back from host memory and from a disk.

make bench-kvstore [ARGS="--tokens 1024 8192 65536 --restored 1024 4096 --runs 21"]

Forks and rollbacks are those of the packaged model's geometry, beside a deep copy of a DynamicCache of the same size.
What comes back: `kvstore_restore.py`. With --all, what `kvstore_ledger.py` and `kvstore_lossy.py` measure follows.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from transformers import DynamicCache

from sostenuto.bench.kvstore_restore import ROOT, Row, recomputed, restored, spread
from sostenuto.bench.report import machine
from sostenuto.kvstore import Branch, Ledger, Shape
from sostenuto.kvstore.pages import Pages
from sostenuto.runtime.engines.torch.model import Model
from sostenuto.runtime.engines.torch.weights import locate

SEED = 0
GIVEN_UP = 64
"""Tokens that a rollback gives up."""
OUT = Path(__file__).parent / "results" / "kvstore.json"
OTHERS = {"ledger": "kvstore_ledger", "lossy": "kvstore_lossy"}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 8192, 65536], help="for fork and rollback")
    parser.add_argument("--restored", type=int, nargs="+", default=[1024, 4096], help="for what comes back")
    parser.add_argument("--runs", type=int, default=21, help="of what comes back; of the rest ten times as many")
    parser.add_argument("--folder", type=Path, help="on the disk to be measured (default: a temporary one)")
    parser.add_argument("--all", action="store_true", help="the ledger, codecs and token eviction too: half an hour")
    parser.add_argument("--json", action="store_true", help="print one object, and write nothing")
    parser.add_argument("--out", type=Path, default=OUT, help="where that object is written otherwise (%(default)s)")
    asked = parser.parse_args(arguments)
    found = measure(asked)
    if not asked.json:
        print("\n".join(table(found)), flush=True)
    if asked.all:
        found |= {name: _other(module, shown=not asked.json) for name, module in OTHERS.items()}
    if asked.json:
        print(json.dumps(found))
    else:
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"\nwritten to {asked.out}")


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """All figures but those of the other programs, as they are written."""
    torch.manual_seed(SEED)
    model = Model.load(locate(None))
    found: dict[str, Any] = {"machine": machine(SEED, torch.get_num_threads()), "runs": asked.runs}
    found["fork"] = _forks(model.shape, asked.tokens, 10 * asked.runs)
    found["rollback"] = _rollbacks(model.shape, asked.tokens, 10 * asked.runs)
    found["slopes"] = {name: _slope(found[name]) for name in ("fork", "rollback")}
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        for tokens in asked.restored:
            anew = recomputed(model, tokens)
            for name, row in restored(model.shape, tokens, asked.runs, Path(folder) / str(tokens)).items():
                row |= {"recompute_us_per_token": anew, "faster": anew / row["us_per_token"]}
                found.setdefault(name, []).append(row)
    found["limits"] = {
        "memory_bytes_per_s": found["restore_host"][-1]["limit_bytes_per_s"],
        "memory_of_all_threads_bytes_per_s": found["restore_host"][-1]["all_threads_bytes_per_s"],
        "disk_bytes_per_s": found["restore_disk"][-1]["limit_bytes_per_s"],
        "bytes_per_token": model.shape.bytes_per_token,
    }
    return found


def _forks(shape: Shape, sizes: Sequence[int], runs: int) -> list[Row]:
    """A fork, and the first token that the child writes: the last page is copied, all of it but one slot."""
    parents = [_grown(shape, tokens - 1) for tokens in sizes]
    pages, copied = Pages(shape, 2), 0
    forks: list[list[float]] = [[] for _ in sizes]
    writes: list[list[float]] = [[] for _ in sizes]
    for number in range(-3, runs):
        for parent, forked, written in zip(parents, forks, writes, strict=True):
            start = perf_counter()
            child = parent.fork()
            middle = perf_counter()
            growth = child.reserve(1)
            if growth.copy is not None:
                pages.copy(0, 1, growth.copy.tokens)
                copied = growth.copy.tokens * shape.bytes_per_token
            end = perf_counter()
            child.close()
            if number >= 0:
                forked.append(middle - start)
                written.append(end - middle)
    rows = []
    for tokens, parent, forked, written in zip(sizes, parents, forks, writes, strict=True):
        kept: list[Branch] = []
        books = _allocated(lambda parent=parent, kept=kept: kept.append(parent.fork()))  # type: ignore[misc]
        row = spread(tokens, forked) | {"bytes": books + copied, "bytes_of_books": books, "bytes_copied": copied}
        row |= {"first_write_us_p50": spread(tokens, written)["us_p50"]}
        rows.append(row | {"deep_copy_us_p50": _deep_copy(shape, tokens), "deep_copy_bytes": _size(shape, tokens)})
    return rows


def _rollbacks(shape: Shape, sizes: Sequence[int], runs: int) -> list[Row]:
    """Some tokens given up at the end of a context, which were computed before."""
    branches = [_grown(shape, tokens) for tokens in sizes]
    times: list[list[float]] = [[] for _ in sizes]

    def grow(branch: Branch) -> None:
        branch.reserve(GIVEN_UP)
        branch.append(range(GIVEN_UP))

    for number in range(-3, runs):
        for tokens, branch, taken in zip(sizes, branches, times, strict=True):
            grow(branch)
            start = perf_counter()
            branch.rollback(tokens)
            if number >= 0:
                taken.append(perf_counter() - start)
    rows = []
    for tokens, branch, taken in zip(sizes, branches, times, strict=True):
        grow(branch)
        books = _allocated(lambda tokens=tokens, branch=branch: branch.rollback(tokens))  # type: ignore[misc]
        rows.append(spread(tokens, taken) | {"bytes": books, "given_up": GIVEN_UP})
    return rows


def _grown(shape: Shape, tokens: int) -> Branch:
    branch = Branch(Ledger(-(-tokens // shape.page) + 8, shape.page), ROOT)
    branch.reserve(tokens)
    branch.append([at % 1000 for at in range(tokens)])
    return branch


def _allocated(call: Callable[[], object]) -> int:
    """Bytes of Python's that a call takes at most."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def _deep_copy(shape: Shape, tokens: int) -> float:
    """Microseconds, at the median of five, of what there is without pages: a copy of everything."""
    cache: Any = DynamicCache()
    size = (1, shape.kv_heads, tokens, shape.head_dim)
    for layer in range(shape.layers):
        keys, values = (torch.randn(size).to(getattr(torch, shape.dtype)) for _ in range(2))
        cache.update(keys, values, layer)
    times = []
    for _ in range(5):
        start = perf_counter()
        copy.deepcopy(cache)
        times.append(perf_counter() - start)
    return round(median(times) * 1e6, 1)


def _size(shape: Shape, tokens: int) -> int:
    return tokens * shape.bytes_per_token


def _slope(rows: Sequence[Row]) -> dict[str, float]:
    """By how much time and bytes grow with a thousand tokens more, from the shortest context to the longest."""
    first, last = rows[0], rows[-1]
    thousands = max(1, last["tokens"] - first["tokens"]) / 1000
    return {f"{name}_per_1000_tokens": (last[name] - first[name]) / thousands for name in ("us_p50", "bytes")}


def _other(module: str, *, shown: bool) -> Any:
    """What another benchmark writes; it runs in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        if shown:
            print(f"\n{module}", flush=True)
        command = [sys.executable, "-P", "-m", f"sostenuto.bench.{module}", "--json", str(out)]
        subprocess.run(command, check=True, stdout=None if shown else subprocess.DEVNULL)
        return json.loads(out.read_text(encoding="utf-8"))


def table(found: dict[str, Any]) -> list[str]:
    """What people read."""
    lines = [found["machine"]]
    told = {
        "fork": f"fork, microseconds; bytes: of books{'':<23}",
        "rollback": f"rollback, {GIVEN_UP} tokens given up, microseconds{'':<13}",
    }
    for name, what in told.items():
        peer = "first write   copied   deep copy, us     its bytes" if name == "fork" else ""
        lines += ["", f"{what[:47]:<47}min     p50     p99     n   bytes   {peer}".rstrip()]
        for row in found[name]:
            size = row.get("bytes_of_books", row["bytes"])
            line = (
                f"  of {row['tokens']:>7,} tokens{'':<24}{row['us_min']:>9.1f}{row['us_p50']:>8.1f}"
                f"{row['us_p99']:>8.1f}{row['n']:>6}{size:>8,}"
            )
            if name == "fork":
                line += f"{row['first_write_us_p50']:>14.1f}{row['bytes_copied']:>9,}"
                line += f"{row['deep_copy_us_p50']:>16,.0f}{row['deep_copy_bytes']:>14,}"
            lines.append(line)
        slope = found["slopes"][name]
        more = f"{slope['us_p50_per_1000_tokens']:+.2f} us, {slope['bytes_per_1000_tokens']:+.1f} bytes"
        lines.append(f"  1,000 tokens more: {more}")
    for name in (name for name in found if name.startswith("restore_")):
        lines += ["", f"{name:<26}us/token  computed anew  anew/ours    MB/s  limit MB/s  of limit  by processor time"]
        for row in found[name]:
            lines.append(
                f"  of {row['tokens']:>7,} tokens   {row['us_per_token']:>11.1f}{row['recompute_us_per_token']:>15.1f}"
                f"{row['faster']:>11.0f}{row['bytes_per_s'] / 1e6:>8.0f}{row['limit_bytes_per_s'] / 1e6:>12.0f}"
                f"{row['of_limit']:>10.2f}{row['of_limit_in_processor_time']:>19.2f}"
            )
        every = row.get("all_threads_bytes_per_s")
        also = "" if every is None else f"; by all threads {every / 1e6:,.0f} MB/s"
        lines.append(f"  the limit: {row['limit']}{also}")
    return lines


if __name__ == "__main__":
    main()
