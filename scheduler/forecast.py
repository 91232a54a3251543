"""How long will this tool take? What was seen of each tool, what is left of a call that is out, and how sure that is.

Durations are counted in bins that grow by 19 %, and each counts as the end of its bin: a quantile is never too short,
and too long by 19 % at most, for who waits until just before a tool is back has waited for nothing. What was seen
lately counts for more: it fades to one half over `HALF` observations, and to an eighth at once when the tool has
become another (`drift`). One observation is constant time, about a microsecond on average.

The hazard is that of all queues with heavy tails: the longer a tool has been out, the longer it will be. So what is
asked of a forecast is always asked for a call that has been out for so long already.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf, isfinite, log2, sqrt
from typing import Any

HALF = 256
"""Observations after which one counts for half as much."""
SURE = 16
"""With so many observations a forecast is half sure."""
SHAPES = 64
"""Shapes of arguments that are told apart for one tool; further ones count for the tool alone."""
TOOLS = 4096
"""Tools, and sets of tools called together, that are told apart; further ones count for all tools alone."""
DRIFTED = 4.0
"""A tool has become another when what was seen lately lies so many standard errors off."""

_OCTAVE = 4
_LOWEST = -10  # the first bin ends at 2 ** -10 s, the last at 2 ** 17 s, a day and a half
_BINS = 27 * _OCTAVE + 1
_EDGES = tuple(2.0 ** (_LOWEST + bin / _OCTAVE) for bin in range(_BINS))
_FIRST = _EDGES[0]
_BATCH = 16
_GROWTH = 2.0 ** (_BATCH / HALF)
_SLOW = 1 / 8  # of a batch, in the means of which drift is told


@dataclass(frozen=True, slots=True)
class Curve:
    """What was seen, as a distribution: `times` ascend, and `shares` of all calls took so long."""

    times: tuple[float, ...]
    shares: tuple[float, ...]

    def within(self, seconds: float) -> float:
        """The share of calls that are back after so long."""
        return sum(share for time, share in zip(self.times, self.shares, strict=True) if time <= seconds)

    def best(self, loss: float, price: float = 1.0, *, out: float = 0.0, most: float = inf) -> float:
        """How long to wait, from now on, for a call that has been out for `out` seconds: the tau with the least

            price * E[min(t, tau)] + loss * P(t > tau)

        where t is what is left of the call, `price` what a second of waiting costs, and `loss` what it costs to have
        stopped waiting. It is 0 or a time that was seen; `most` where waiting costs nothing. A step a bin at most.
        """
        if price <= 0:
            return most
        times, shares = self.times, self.shares
        first = bisect_right(times, out)
        open_ = sum(shares[first:])
        best, least, back, loss = 0.0, loss * open_, 0.0, loss / price
        least /= price
        for at in range(first, len(times)):  # nothing is known of one that has been out longer than any
            t, share = times[at] - out, shares[at]
            open_ -= share
            back += t * share
            waited = back + t * open_
            if waited >= least or t > most:  # it only grows
                break
            if waited + loss * open_ < least:
                best, least = t, waited + loss * open_
        return best

    def cost(self, tau: float, loss: float, price: float = 1.0) -> float:
        """What waiting for so long costs on average."""
        waited = sum(min(t, tau) * share for t, share in zip(self.times, self.shares, strict=True))
        return price * waited + loss * (1 - self.within(tau))

    def quantile(self, share: float, *, out: float = 0.0) -> float:
        """When so great a share of the calls that have been out for `out` seconds are back, from now on."""
        left = [(t - out, each) for t, each in zip(self.times, self.shares, strict=True) if t > out]
        goal, seen = share * sum(each for _, each in left), 0.0
        for t, each in left:
            seen += each
            if seen >= goal:
                return t
        return inf

    @property
    def mean(self) -> float:
        return sum(t * share for t, share in zip(self.times, self.shares, strict=True))

    def hazard(self, out: float, soon: float) -> float:
        """The chance that a call that has been out for `out` seconds is back within `soon` more."""
        open_ = 1 - self.within(out)
        return 1.0 if open_ <= 1e-9 else (self.within(out + soon) - self.within(out)) / open_


class Durations:
    """What was seen of one tool. `repr` shows median, tail and how sure they are."""

    __slots__ = ("_bins", "_curve", "_fast", "_new", "_one", "_seen", "_slow", "_spread", "_stale", "_sum")

    def __init__(self) -> None:
        self._bins = [0.0] * _BINS
        self._new: list[float] = []  # not counted yet: sixteen at a time cost less than one by one
        self._seen = 0
        self._one = 1.0  # what the next observations count; those before count relative to it
        self._sum = 0.0
        self._fast = self._slow = self._spread = 0.0
        self._curve: Curve | None = None
        self._stale = 0

    @property
    def count(self) -> int:
        """Observations so far."""
        return self._seen + len(self._new)

    def observe(self, seconds: float) -> None:
        """It took so long."""
        new = self._new
        new.append(seconds)
        if len(new) == _BATCH:
            self._take()

    @property
    def drift(self) -> float:
        """By how many standard errors the last sixteen lie above, or below, what was seen before."""
        return (self._fast - self._slow) / sqrt(max(self._spread, 1e-3) / _BATCH)

    @property
    def sure(self) -> float:
        """From 0, nothing was seen, towards 1."""
        counted = self._sum / self._one + len(self._new)
        return counted / (counted + SURE)

    @property
    def curve(self) -> Curve:
        """What was seen, as of a moment ago: put together anew when an eighth of what counts has come to it."""
        if self._curve is None or (self._stale + len(self._new)) * 8 > min(self.count, HALF):
            self._take()
            kept = [(time, each) for time, each in zip(_EDGES, self._bins, strict=True) if each > 0]
            self._curve = Curve(tuple(time for time, _ in kept), tuple(each / self._sum for _, each in kept))
            self._stale = 0
        return self._curve

    def data(self) -> dict[str, Any]:
        """All of it, as plain data; `of` reads it."""
        self._take()
        bins = {str(at): each / self._one for at, each in enumerate(self._bins) if each / self._one > 1e-6}
        return {"count": self._seen, "bins": bins, "means": [self._fast, self._slow, self._spread]}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Durations:
        """What `data` gave; KeyError, TypeError or ValueError for anything else."""
        known = cls()
        for at, each in data["bins"].items():
            if not 0 <= int(at) < _BINS or not 0 <= float(each) < inf:
                raise ValueError(f"a bin of durations: found {at}: {each}; expected 0 to {_BINS - 1}, and a number")
            known._bins[int(at)] = float(each)
        known._sum = sum(known._bins)
        known._seen = int(data["count"])
        known._fast, known._slow, known._spread = map(float, data["means"])
        means = known._fast, known._slow, known._spread
        if known._seen < 0 or not all(map(isfinite, means)) or known._spread < 0:
            raise ValueError(f"durations: found a count of {known._seen} and means {means}; expected finite numbers")
        return known

    def __repr__(self) -> str:
        curve = self.curve
        return f"<Durations {curve.quantile(0.5):.3g} s, 90 % in {curve.quantile(0.9):.3g} s, {self.sure:.0%} sure>"

    def _take(self) -> None:
        """Count what is new."""
        new, bins, one = self._new, self._bins, self._one
        if not new:
            return
        octaves = [log2(seconds) if seconds > _FIRST else _LOWEST for seconds in new]
        for octave in octaves:
            at = ceil((octave - _LOWEST) * _OCTAVE)
            bins[at if at < _BINS else -1] += one
        number = len(new)
        self._new = []
        self._stale += number
        self._sum += one * number
        self._one = one * (_GROWTH if number == _BATCH else 2.0 ** (number / HALF))
        mean = sum(octaves) / number
        spread = sum([(octave - mean) ** 2 for octave in octaves]) / number
        before, self._seen = self._seen, self._seen + number
        self._fast = mean
        if before >= 4 * _BATCH and number == _BATCH and abs(self.drift) > DRIFTED:
            self._one *= 8
            self._slow, self._spread = mean, spread
        share = max(_SLOW, number / self._seen)
        self._slow += (mean - self._slow) * share
        self._spread += (spread - self._spread) * share
        if self._one > 1e12:
            self._bins = [each / self._one for each in bins]
            self._sum /= self._one
            self._one = 1.0


@dataclass(slots=True)
class _Tool:
    all: Durations
    shapes: dict[str, Durations]


class Forecasts:
    """What was seen of every tool. `repr` shows how many there are."""

    def __init__(self) -> None:
        self._tools: dict[str, _Tool] = {}
        self.any = Durations()
        """Of all tools, for those of which nothing is known."""

    def __len__(self) -> int:
        return len(self._tools)

    def observe(self, tool: str, seconds: float, shape: str = "") -> None:
        """A call, or several at once under their joint name, took so long. `shape` is that of its arguments."""
        known = self._tools.get(tool)
        self.any.observe(seconds)
        if known is None:
            if len(self._tools) >= TOOLS:
                return
            known = self._tools[tool] = _Tool(Durations(), {})
        known.all.observe(seconds)
        if shape:
            own = known.shapes.get(shape)
            if own is None:
                if len(known.shapes) >= SHAPES:
                    return
                own = known.shapes[shape] = Durations()
            own.observe(seconds)

    def of(self, tools: Iterable[str], shape: str = "") -> Durations:
        """The closest of what is known: of these arguments, of the tool, of the slowest of several, of any tool."""
        names = sorted(set(tools))
        known = self._tools.get(joint(names))
        if known is None and len(names) > 1:
            each = [one for name in names if (one := self._tools.get(name)) is not None]
            known = max(each, key=lambda one: one.all.curve.mean, default=None)
        if known is None:
            return self.any
        own = known.shapes.get(shape)
        return own if own is not None and own.count >= SURE else known.all

    def data(self) -> dict[str, Any]:
        """All of it, as plain data, for a file; `Forecasts.read` is the way back."""
        tools = {
            name: {"all": tool.all.data(), "shapes": {shape: own.data() for shape, own in tool.shapes.items()}}
            for name, tool in self._tools.items()
        }
        return {"any": self.any.data(), "tools": tools}

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Forecasts:
        """What `data` gave. Raises ValueError, with what is wrong, for anything else."""
        forecasts = cls()
        try:
            forecasts.any = Durations.of(data["any"])
            for name, tool in data["tools"].items():
                shapes = {shape: Durations.of(own) for shape, own in tool["shapes"].items()}
                forecasts._tools[name] = _Tool(Durations.of(tool["all"]), shapes)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"these are no forecasts as they are written: {type(error).__name__} {error}") from error
        return forecasts

    def __repr__(self) -> str:
        return f"<Forecasts of {len(self)} tools | any: {self.any!r}>"


def joint(tools: Sequence[str]) -> str:
    """Under which calls that were made at once are known."""
    return "+".join(sorted(set(tools)))
