"""What a schedule has measured of its own work, in running means: constant time for each event."""

from __future__ import annotations

from math import inf, sqrt

LAST = 64
"""A mean is that of about so many of the last."""


class Mean:
    """A plain mean of the first `LAST`, then one in which what is older fades."""

    __slots__ = ("count", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self.count = 0

    def add(self, value: float) -> None:
        self.count += 1
        self.value += (value - self.value) / min(self.count, LAST)

    def __repr__(self) -> str:
        return f"<Mean {self.value:.3g} of {self.count}>"


class Fading:
    """A sum of what fades to one half in every second, without touching what is in it."""

    __slots__ = ("_at", "_sum")

    def __init__(self) -> None:
        self._sum = 0.0
        self._at = 0.0

    def at(self, now: float) -> float:
        """The sum as of now."""
        self._sum *= 2.0 ** max(self._at - now, -1000.0)
        self._at = now
        return max(self._sum, 0.0)

    def add(self, value: float, now: float, since: float) -> None:
        """Something whose whole worth was `value` at `since`; a negative one takes it out again."""
        self._sum = self.at(now) + value * 2.0 ** max(since - now, -1000.0)


class Meters:
    """Means over turns and pauses. `repr` shows how busy programs are and whether memory or the device is short."""

    def __init__(self) -> None:
        self.reason = Mean()
        """Seconds that a turn runs."""
        self.away = Mean()
        """Seconds of a pause for tools."""
        self.pages = Mean()
        """Pages that a context has when its turn ends."""
        self.queued = Mean()
        """Seconds that a turn waited whose program had lost its context."""
        self._pairs = [0.0] * 6  # n, and the sums of x, y, x x, y y, x y over turns done and turns left

    @property
    def duty(self) -> float:
        """The share of its time in which a program computes rather than waits for tools: d."""
        both = self.reason.value + self.away.value
        return self.reason.value / both if self.away.count and both > 0 else 1.0

    def ratio(self, room: int) -> float:
        """How many programs compute at a time when the pool is full of contexts: R = k_fit * d.

        Below 1 the device is idle whoever is let in or kept out: memory is short, and not time. Infinite before
        anything was seen.
        """
        return room / self.pages.value * self.duty if self.pages.value > 0 else inf

    def finished(self, turns: int) -> None:
        """A program is done after so many turns: for each of them, so many were done and so many were left.

        In closed form, so that a long program costs no more than a short one.
        """
        n = float(turns)
        ones, squares = n * (n + 1) / 2, n * (n + 1) * (2 * n + 1) / 6
        left = n * n - ones  # the sum of n - k over k = 1..n
        left_squares = n**3 - 2 * n * ones + squares
        for at, more in enumerate((n, ones, left, squares, left_squares, n * ones - squares)):
            self._pairs[at] += more

    @property
    def eta(self) -> float:
        """How much many turns done tell that few are left: minus the correlation of both, 1 if it is unknown."""
        n, x, y, xx, yy, xy = self._pairs
        spread = (n * xx - x * x) * (n * yy - y * y)
        return 1.0 if n < 2 or spread <= 0 else -(n * xy - x * y) / sqrt(spread)

    def __repr__(self) -> str:
        return f"<Meters busy {self.duty:.0%} | {self.pages.value:.1f} pages a context>"
