"""`sostenuto kv`: what lies in a disk tier, is it whole, and what can be given back; without a model or a GPU."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from ..kvstore import BlockHash
from ..kvstore.tiers import Freed, Mark, Store
from ..kvstore.tiers.marks import shared


def kv_options(parser: argparse.ArgumentParser) -> None:
    """What `sostenuto kv` takes."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    ls = commands.add_parser("ls", help="sizes, and the snapshots with what they hold")
    show = commands.add_parser("show", help="one snapshot: its seal, its note and its blocks")
    verify = commands.add_parser("verify", help="read everything; says each bad record, and exits 1 if there is one")
    forget = commands.add_parser("forget", help="let a snapshot go; gc then gives back what nothing else needs")
    gc = commands.add_parser("gc", help="give back what nothing refers to; nobody else may be writing")
    for each in (ls, show, verify, forget, gc):
        each.add_argument("dir", type=Path, metavar="DIR", help="the folder of the disk tier")
        each.add_argument("--json", action="store_true", help="one JSON object")
    for each in (show, forget):
        each.add_argument("key", metavar="KEY", help="under which it was kept, by whichever tenant")
    gc.add_argument(
        "--least", type=_share, default=0.0, metavar="SHARE", help="leave segments with less garbage (default: 0)"
    )
    gc.add_argument("--unmarked", action="store_true", help="drop all blocks first that are in no snapshot")


def kv_shown(options: argparse.Namespace, now: float) -> tuple[str, int]:
    """What was asked for, and how to exit; `now` is in seconds since 1970.

    Raises BadStore for a folder that is no disk tier, TierLocked where gc or forget meets a writer, ValueError for a
    key that nobody kept.
    """
    store = Store(options.dir, write=False)
    if options.action in ("gc", "forget"):
        store.close()  # there is a tier: else a writer would make one
        store = Store(options.dir)
    try:
        found, text, code = _ACTIONS[options.action](store, options, now)
    finally:
        store.close()
    return (json.dumps(found) if options.json else text), code


_Answer = tuple[dict[str, Any], str, int]


def _ls(store: Store, options: argparse.Namespace, now: float) -> _Answer:
    marks = sorted(store.marks.all(), key=lambda mark: mark.kept)
    sizes = {head.name: head.size for head in store.log.heads()}
    counts = shared(marks)
    rows = [_row(mark, sizes, counts, now) for mark in marks]
    segments, size, served = store.log.size
    found = {
        "dir": str(options.dir),
        "segments": segments,
        "bytes": size,
        "served_bytes": served,
        "blocks": len(sizes),
        "loose_blocks": sum(name not in counts for name in sizes),
        "snapshots": rows,
        "bad_snapshots": dict(sorted(store.marks.bad.items())),
    }
    lines = [
        f"{options.dir}: {_bytes(size)} in {segments} segments, {_bytes(size - served)} of it can be given back",
        f"{len(sizes)} blocks, {found['loose_blocks']} of them in no snapshot; {len(marks)} snapshots",
    ]
    if rows:
        heads = ("snapshot", "tokens", "blocks", "lost", "shared", "size", "age", "model", "tenant", "seal")
        lines += ["", *_table([heads, *(_cells(row) for row in rows)])]
    lines += [f"{file} cannot be read: {why}" for file, why in sorted(store.marks.bad.items())]
    return found, "\n".join(lines), 0


def _show(store: Store, options: argparse.Namespace, now: float) -> _Answer:
    marks = store.marks.all()
    chosen = _chosen(marks, options)
    sizes = {head.name: head.size for head in store.log.heads()}
    counts = shared(marks)
    found = [_whole(mark, sizes, counts, now) for mark in chosen]
    return {"snapshots": found}, "\n\n".join(_told(each) for each in found), 0


def _forget(store: Store, options: argparse.Namespace, now: float) -> _Answer:
    chosen = _chosen(store.marks.all(), options)
    for mark in chosen:
        store.forget(mark.parked.seal.tenant, mark.key)
    text = f"{len(chosen)} forgotten; `sostenuto kv gc --unmarked` gives back what no other snapshot needs"
    return {"forgotten": len(chosen)}, text, 0


def _chosen(marks: list[Mark], options: argparse.Namespace) -> list[Mark]:
    chosen = [mark for mark in marks if mark.key == options.key]
    if not chosen:
        known = ", ".join(sorted({repr(mark.key) for mark in marks})[:5]) or "none at all"
        raise ValueError(f"no snapshot {options.key!r} lies in {options.dir}; there are {known}")
    return chosen


def _verify(store: Store, options: argparse.Namespace, now: float) -> _Answer:
    report = store.verify()
    found = {
        "blocks": report.blocks,
        "bytes": report.bytes,
        "snapshots": report.marks,
        "faults": list(report.faults),
        "unfinished_bytes": report.unfinished,
    }
    lines = [f"bad: {fault}" for fault in report.faults]
    if report.unfinished:
        lines.append(f"{report.unfinished} bytes of an unfinished write: the next writer cuts them off")
    verdict = f"{len(report.faults)} faults" if report.faults else "all as they were written"
    lines.append(f"{report.blocks} blocks, {_bytes(report.bytes)}, {report.marks} snapshots: {verdict}")
    return found, "\n".join(lines), 1 if report.faults else 0


def _gc(store: Store, options: argparse.Namespace, now: float) -> _Answer:
    if options.unmarked:
        store.drop(store.unmarked())
    freed = sum(store.gc(options.least), Freed())
    _, size, _ = store.log.size
    found = {"freed_bytes": freed.bytes, "rewritten_segments": freed.segments, "bad": freed.bad, "bytes": size}
    text = f"{_bytes(freed.bytes)} freed by rewriting {freed.segments} segments; {_bytes(size)} are left"
    if freed.bad:
        text += f"; {freed.bad} damaged records were left behind"
    return found, text, 0


_ACTIONS = {"ls": _ls, "show": _show, "verify": _verify, "forget": _forget, "gc": _gc}


def _row(mark: Mark, sizes: dict[BlockHash, int], counts: Counter[BlockHash], now: float) -> dict[str, Any]:
    names, seal = mark.parked.names, mark.parked.seal
    return {
        "key": mark.key,
        "tokens": len(mark.parked),
        "blocks": len(names),
        "lost_blocks": sum(name not in sizes for name in names),
        "shared_blocks": sum(counts[name] > 1 for name in names),
        "bytes": sum(sizes.get(name, 0) for name in names),
        "age_seconds": max(0, round(now - mark.kept)),
        "model": seal.model,
        "tenant": seal.tenant,
        "seal": seal.digest.hex(),
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    numbers = [f"{row[each]:,}" for each in ("tokens", "blocks", "lost_blocks", "shared_blocks")]
    names = (_plain(row["model"][:24]), row["tenant"][:8], row["seal"][:8])
    return (_plain(row["key"]), *numbers, _bytes(row["bytes"]), _age(row["age_seconds"]), *names)


def _whole(mark: Mark, sizes: dict[BlockHash, int], counts: Counter[BlockHash], now: float) -> dict[str, Any]:
    blocks = [
        {
            "name": link.name.hex(),
            "tokens": len(link.tokens),
            "bytes": sizes.get(link.name),
            "snapshots": counts[link.name],
        }
        for link in mark.parked.links()
    ]
    more = {"root": mark.parked.root.hex(), "seal_fields": mark.parked.seal.plain(), "note": dict(mark.parked.note)}
    return {**_row(mark, sizes, counts, now), **more, "chain": blocks}


def _told(found: dict[str, Any]) -> str:
    lines = [
        f"{_plain(found['key'])}: {found['tokens']:,} tokens in {found['blocks']:,} blocks, {_bytes(found['bytes'])}, "
        f"kept {_age(found['age_seconds'])} ago",
        f"root {found['root']}",
        f"seal {found['seal']}",
        *(f"  {name} {_plain(str(value))}" for name, value in found["seal_fields"].items()),
        f"note {json.dumps(found['note'])}",
    ]
    rows = [
        (
            each["name"],
            str(each["tokens"]),
            "lost" if each["bytes"] is None else _bytes(each["bytes"]),
            str(each["snapshots"]),
        )
        for each in found["chain"]
    ]
    return "\n".join([*lines, *_table([("block", "tokens", "size", "in snapshots"), *rows])])


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """The first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lined = (
        [
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    )
    return ["  ".join(cells).rstrip() for cells in lined]


def _bytes(size: int) -> str:
    if size < 10 << 10:
        return f"{size:,} B"
    if size < 10 << 20:
        return f"{size / 2**10:,.1f} KiB"
    return f"{size / 2**20:,.1f} MiB"


def _age(seconds: int) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _plain(text: str) -> str:
    """On one line, whatever somebody put into a key."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share < 1:
        raise ValueError(text)
    return share


_share.__name__ = "share from 0 to below 1"  # argparse names it when it refuses a value
