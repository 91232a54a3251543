"""How likely the tokens of a row of logits are: summed once, in parts, so that a draw looks into one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PART = 256
"""Tokens whose shares are summed together; the last part has what is left, and may have nothing."""
Row = NDArray[np.float32]
Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Summed:
    """A row, divided by a temperature and with what a mask forbids at minus infinity, looked at once."""

    highest: float
    best: int
    """The first token that is as likely as the likeliest."""
    allowed: int
    sums: Row
    """Of each part: e to the (value - highest)."""
    tops: Row
    """Of each part, the highest value."""


Sum = Callable[[Row, float, bytes | None], Summed]
"""Of a row, a temperature and a mask: a bit a token, lowest first, 1 = allowed; what it is too short for is not."""


def summed(row: Row, warm: float, mask: bytes | None) -> Summed:
    """In numpy."""
    values = row if warm == 1.0 else row / np.float32(warm)
    allowed = row.size
    if mask is not None:
        bits = _bits(mask, row.size)
        values, allowed = np.where(bits, values, np.float32("-inf")), int(np.count_nonzero(bits))
    highest = values.max()
    even = row.size // PART * PART
    with np.errstate(invalid="ignore"):  # what is no number is told by whoever looks at the total
        each = np.exp(values - highest)
        sums = np.append(each[:even].reshape(-1, PART).sum(1), each[even:].sum())
        tops = np.append(values[:even].reshape(-1, PART).max(1), values[even:].max(initial=-np.inf))
    return Summed(float(highest), int(values.argmax()), allowed, sums, tops)


def all_allowed(mask: bytes, size: int) -> bool:
    """Does the mask forbid nothing? Then it is free text, and there is nothing to sum twice."""
    whole, rest = divmod(size, 8)
    if len(mask) < whole + (rest > 0) or mask[:whole] != b"\xff" * whole:
        return False
    return not rest or mask[whole] & (1 << rest) - 1 == (1 << rest) - 1


class Spread:
    """How likely the tokens of a row are at a temperature, under a mask."""

    __slots__ = ("_mask", "_row", "_seen", "_sums", "_warm", "total")

    def __init__(self, row: Row, sum_up: Sum, *, warm: float = 1.0, mask: bytes | None = None) -> None:
        self._row, self._warm, self._mask = row, warm, mask
        self._seen = sum_up(row, warm, mask)
        self._sums = self._seen.sums.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            self.total = self._seen.highest + float(np.log(self._sums.sum()))
            """The logarithm of the sum of e to the value; no finite number where the logits are none."""

    @property
    def size(self) -> int:
        return self._row.size

    @property
    def best(self) -> int:
        """The likeliest token, of equals the one with the smallest id."""
        return self._seen.best

    @property
    def allowed(self) -> int:
        """How many the mask leaves."""
        return self._seen.allowed

    @property
    def whole(self) -> float:
        """The sum of all parts of the likeliest."""
        return float(self._sums.sum())

    def log(self, token: int) -> float:
        """The logarithm of a token's share."""
        value = self._row[token] / np.float32(self._warm)
        return float(value) - self.total if self._may(token) else -np.inf

    def parts(self, ids: Ids | slice) -> Row:
        """The shares of these tokens, as parts of the likeliest."""
        shares: Row = np.exp(self._values(ids) - np.float32(self._seen.highest))
        return shares

    def at(self, share: float) -> int:
        """The first token at which the sum of shares, in the order of ids, passes this part of all."""
        before = self._sums.cumsum()
        wanted = share * before[-1]
        part = min(int(before.searchsorted(wanted, side="right")), int(self._sums.nonzero()[0][-1]))
        own = self.parts(slice(part * PART, min((part + 1) * PART, self.size)))
        mass = own.cumsum(dtype=np.float64)
        inside = int(mass.searchsorted(wanted - (before[part - 1] if part else 0.0), side="right"))
        return part * PART + min(inside, int(own.nonzero()[0][-1]))

    def likeliest(self, count: int) -> Ids:
        """At least so many tokens, the likeliest first, and of equals the one with the smallest id."""
        ids = self._among(min(count, self.size))
        return ids[np.argsort(-self._values(ids), kind="stable")]

    def _among(self, count: int) -> Ids:
        """Tokens of which the likeliest are some, as few as is quickly found."""
        if self.allowed < self.size and self.allowed <= max(count, 4 * PART):
            allowed: Ids = np.flatnonzero(_bits(self._mask or b"", self.size))
            return allowed
        tops = self._seen.tops
        if 2 * count > tops.size:
            values = self._values(slice(None))
            return np.flatnonzero(values >= np.partition(values, self.size - count)[self.size - count])
        # The highest of so many parts are so many tokens: what is likelier lies in those parts.
        least = np.partition(tops, tops.size - count)[tops.size - count]
        ids = (np.flatnonzero(tops >= least)[:, None] * PART + np.arange(PART)).ravel()
        ids = ids[: np.searchsorted(ids, self.size)]
        found: Ids = ids[self._values(ids) >= least]
        return found

    def _values(self, ids: Ids | slice) -> Row:
        values = self._row[ids]
        if self._warm != 1.0:
            values = values / np.float32(self._warm)
        if self._mask is None:
            return values
        return np.where(_bits(self._mask, self.size)[ids], values, np.float32("-inf"))

    def _may(self, token: int) -> bool:
        mask = self._mask
        return mask is None or (token // 8 < len(mask) and mask[token // 8] >> token % 8 & 1 == 1)


def _bits(mask: bytes, size: int) -> NDArray[np.bool_]:
    bits = np.unpackbits(np.frombuffer(mask, dtype=np.uint8), count=min(8 * len(mask), size), bitorder="little")
    allowed = np.zeros(size, dtype=bool)
    allowed[: bits.size] = bits
    return allowed
