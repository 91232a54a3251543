"""How much, how often and how long: token buckets, circuit breakers, back-off. Plain arithmetic; the time is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Limits:
    """What calls of one tool may take. None is no limit."""

    timeout: float | None = None
    """Seconds for one attempt."""
    deadline: float | None = None
    """Seconds for the whole call: waiting, attempts and pauses between them."""
    at_once: int = 32
    """Calls of the tool that may run at the same time, whoever makes them."""
    rate: float | None = None
    """Calls a second, for one tenant, in the long run."""
    burst: int = 10
    """Calls that may come together before `rate` binds."""
    retries: int = 0
    """Attempts after the first one that failed; only ever made where a second attempt does no harm."""
    failures: int = 5
    """Failures in a row after which the tool is left alone."""
    cooldown: float = 30.0
    """For how many seconds; then one call tries it."""
    hedge: float | None = None
    """Seconds after which a second attempt is started beside the first. None: never. Only for what changes nothing."""
    longest: int = 1_000_000
    """Characters of a result; more never reach the model."""

    def __post_init__(self) -> None:
        """Raises ValueError for a limit that nothing could keep."""
        for name in ("timeout", "deadline", "rate", "hedge"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}: found {value}; expected a number above 0, or None for no limit")
        for name in ("at_once", "burst", "failures", "longest"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: found {getattr(self, name)}; expected at least 1")
        if self.retries < 0 or self.cooldown < 0:
            raise ValueError(f"retries {self.retries}, cooldown {self.cooldown}: expected nothing below 0")


class Bucket:
    """So many at once, so many a second."""

    __slots__ = ("_at", "_left", "burst", "rate")

    def __init__(self, rate: float, burst: int) -> None:
        self.rate = rate
        self.burst = burst
        self._left = float(burst)
        self._at: float | None = None

    def wait(self, now: float) -> float:
        """The seconds after which there will be one; 0.0 if there is one now."""
        if self._at is not None and now > self._at:
            self._left = min(self.burst, self._left + (now - self._at) * self.rate)
        self._at = now if self._at is None else max(now, self._at)
        return max(0.0, 1 - self._left) / self.rate

    def take(self, now: float) -> float:
        """Takes one and says 0.0, or takes nothing and says when there will be one."""
        wait = self.wait(now)
        if not wait:
            self._left -= 1
        return wait


class Breaker:
    """Leaves alone what keeps failing: closed while it works, open for a while, then one probe."""

    __slots__ = ("_failed", "_probing", "_since", "cooldown", "failures")

    def __init__(self, failures: int, cooldown: float) -> None:
        self.failures = failures
        self.cooldown = cooldown
        self._failed = 0
        self._since: float | None = None
        self._probing = False

    @property
    def state(self) -> Literal["closed", "open", "probing"]:
        if self._since is None:
            return "closed"
        return "probing" if self._probing else "open"

    def ask(self, now: float) -> float:
        """0.0: go on, and say with `told` how it went; else the seconds after which to ask again."""
        if self._since is None:
            return 0.0
        left = self._since + self.cooldown - now
        if left > 0 or self._probing:
            return max(left, 0.001)
        self._probing = True
        return 0.0

    def told(self, now: float, *, ok: bool | None, probe: bool = False) -> None:
        """How it went; None if that says nothing of the tool, as when the caller gave up.

        `probe` if the state was `probing` when the call was let through: calls from before it opened decide nothing.
        """
        if self._since is not None and not probe:
            return
        self._probing = False
        if ok:
            self._failed, self._since = 0, None
        elif ok is False:
            self._failed += 1
            if probe or self._failed >= self.failures:
                self._since = now


def pause(attempt: int, luck: float, *, base: float = 0.1, longest: float = 10.0) -> float:
    """Seconds before attempt number `attempt` (the second is 1): anything up to a bound that doubles each time.

    `luck` is a draw from 0 to 1. Full jitter: of the schemes compared in Amazon's "Exponential Backoff And Jitter"
    (2015) it makes the fewest calls, since clients that failed together do not come back together.
    """
    return luck * min(longest, base * 2.0 ** min(attempt - 1, 32))
