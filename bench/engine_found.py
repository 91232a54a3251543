"""Measurements of the benchmark of engines by cell and peer, and what is reckoned from several of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from .engine_plan import CONTEXTS, LINEAR

Record = Mapping[str, Any]
MACHINE = "machine"
LONG = 4096
"""From this context on a bend would show."""


class Found:
    """Measurements by cell and peer, round by round."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._by: dict[tuple[str, str], dict[int, Record]] = {}
        for one in records:
            self._by.setdefault((one["cell"], one["peer"]), {})[one["round"]] = one

    def cells(self, *starts: str) -> list[str]:
        """Names of cells that begin with one of these, in the order in which they were measured first."""
        return [cell for cell in dict.fromkeys(cell for cell, _ in self._by) if cell.startswith(starts)]

    def rounds(self, cell: str, peer: str) -> list[Record]:
        return [one for _, one in sorted(self._by.get((cell, peer), {}).items())]

    def values(self, cell: str, peer: str) -> list[float]:
        return [float(one["value"]) for one in self.rounds(cell, peer)]

    def middle(self, cell: str, peer: str, field: str = "value") -> float | None:
        found = [float(one[field]) for one in self.rounds(cell, peer) if field in one]
        return median(found) if found else None

    def ratios(self, cell: str, ours: str, peer: str) -> list[float]:
        """Ours through the peer's, of the rounds that both have: what else the machine did then hit both."""
        mine, other = self._by.get((cell, ours), {}), self._by.get((cell, peer), {})
        return [float(mine[at]["value"]) / float(other[at]["value"]) for at in sorted(mine.keys() & other.keys())]

    def of_bandwidth(self, mode: str, context: str) -> float | None:
        """Bytes that a step of batch 1 must read, by the time it takes, through what the machine reads."""
        rate, bandwidth = self.middle(f"decode 1 x {context}", mode), self.middle("bandwidth", MACHINE)
        cell = f"bytes {mode}"
        weights, each = self.middle(cell, MACHINE), self.middle(cell, MACHINE, "of_a_token")
        if rate is None or bandwidth is None or weights is None or each is None:
            return None
        return (weights + each * CONTEXTS[context]) * rate / bandwidth

    def product_rate(self) -> float | None:
        """Operations by the second in the linear layers of prefill."""
        cells = self.cells("profile exact prefill")
        rates = (self.middle(cell, MACHINE, "products_flops") for cell in cells)
        return max((rate for rate in rates if rate), default=None)

    def host(self, cell: str, mode: str) -> float | None:
        """Of the time of a batch that decodes, what is not in the forward pass."""
        window, forward = (self.middle(cell, mode, field) for field in ("window_s", "forward_s"))
        return None if window is None or forward is None else 1 - forward / window

    def points(self) -> dict[str, float]:
        """Seconds of a token behind each context, in the small model."""
        named = {name: self.middle(f"linear {name}", MACHINE) for name in LINEAR}
        return {name: seconds for name, seconds in named.items() if seconds is not None}

    def bends(self) -> Iterator[tuple[str, float]]:
        """At each long context, what a token more behind costs, through what it cost between the two before."""
        points = self.points()
        slopes = [
            (more, (points[more] - points[less]) / (LINEAR[more] - LINEAR[less])) for less, more in pairwise(points)
        ]
        for (_, before), (name, after) in pairwise(slopes):
            if LINEAR[name] > LONG and before > 0:
                yield name, after / before


def spread(values: Sequence[float], digits: int = 1) -> str:
    """min / p50 / p99 and how many."""
    if not values:
        return "-"
    told = (min(values), median(values), late(values))
    return " / ".join(f"{each:,.{digits}f}" for each in told) + f" ({len(values)})"


def late(values: Sequence[float]) -> float:
    """The 99th of a hundred."""
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]
