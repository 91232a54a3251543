"""A process that keeps snapshots in a loop, and says so, until somebody kills it. Run as a module with a folder."""

from __future__ import annotations

import sys
from pathlib import Path

from sostenuto.kvstore import Parked, peek
from sostenuto.kvstore.tiers import Store

from .records import PAGE, context, records, seal

LIVING = 6
"""Snapshots that are kept at a time; older ones are forgotten, so that there is something to collect."""
SEGMENT = 16 << 10


def snapshot(number: int) -> Parked:
    """The snapshot of this number; neighbours share a beginning."""
    return context([number // 4] * PAGE + list(range(number, number + 3 * PAGE + number % PAGE)))


def write(path: Path, number: int) -> None:
    """Each line on standard output is true when it is written: `kept N` after, `leaving N` before it is forgotten."""
    store = Store(path, segment=SEGMENT)
    while True:
        parked = snapshot(number)
        blocks = records(parked, size=100)
        store.log.append(blocks, {name: peek(data) for name, data in blocks.items()})
        store.log.sync()
        store.keep(f"turn {number}", parked)
        say(f"kept {number}")
        old = number - LIVING
        if old >= 0:
            say(f"leaving {old}")
            store.forget(seal().tenant, f"turn {old}")
            store.drop(snapshot(old).names)
        if number % 4 == 0:
            for _ in store.gc(0.3):
                pass
        number += 1


def say(line: str) -> None:
    """One write, so that a line is heard wholly or not at all."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
