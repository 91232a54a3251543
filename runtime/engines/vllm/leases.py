"""The lease table: which session keeps which blocks of the server's cache, until when, within a budget.

Pure: no vLLM, no clock, no pool. Blocks are numbers; a block in several leases counts once. Whatever is asked is
answered: accepted, clipped, refused or missing, with the reason.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from heapq import heapify, heappop, heappush
from typing import Any, Literal

Verb = Literal["lease", "hold", "demote", "release", "close"]
Result = Literal["accepted", "clipped", "refused", "missing"]
Ending = Literal["expired", "released", "closed", "superseded", "gave way", "reset"]

LONGEST_S = 600.0
REMEMBERED = 4096
"""Sessions whose end is remembered, so that whoever comes too late hears why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a wish."""

    session: str
    verb: str
    answer: Result
    why: str = ""
    blocks: int = 0
    """Held now."""
    of: int = 0
    """Full blocks that there were to hold."""
    seconds: float = 0.0
    """From now until the lease ends."""

    def json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class Lease:
    """One session's blocks, in the order of its context."""

    key: str
    turn: int
    blocks: list[int]
    of: int
    until: float
    whole: bool
    """A part of it would be worth nothing: it is kept, or given up, in one piece."""
    demoted: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """What may be leased. Raises ValueError for terms under which nothing would work."""

    share: float = 0.5
    """Of the pool: all leases together never hold more."""
    lease_s: float = 2.0
    """Where a request names no time: long enough for its tool calls to be read and a hold to be asked for."""
    longest_s: float = LONGEST_S

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(f"{name}: found {value!r}; expected a number above 0")
        if self.share > 1:
            raise ValueError(f"share: found {self.share}; expected a part of the pool, at most 1")


@dataclass(frozen=True, slots=True)
class Offer:
    """What a finished request leaves behind, and how long its session wants it kept."""

    key: str
    turn: int
    """The number that `Leases.arrive` gave the request."""
    blocks: tuple[int, ...]
    seconds: float
    most: int | None = None
    """Blocks that the session wants at most."""
    whole: bool = False
    broken: bool = False
    """It was broken off: an older lease of the session keeps its end if that is later."""


class Leases:
    """The table. `budget` is in blocks, `longest` in seconds. `repr` shows how full it is."""

    def __init__(self, budget: int, *, longest: float = LONGEST_S) -> None:
        self.budget = budget
        self.longest = longest
        self.results: Counter[tuple[str, str]] = Counter()
        """(verb, answer) -> how often."""
        self.ends: Counter[str] = Counter()
        """Why leases ended -> how many did."""
        self.yielded = 0
        """Blocks given up under pressure."""
        self._leases: dict[str, Lease] = {}
        self._holders: Counter[int] = Counter()
        self._heap: list[tuple[float, str]] = []
        self._gone: OrderedDict[str, str] = OrderedDict()
        self._closed: OrderedDict[str, int] = OrderedDict()
        self._returned: list[int] = []
        self._turns = 0

    @property
    def held(self) -> int:
        """Different blocks held."""
        return len(self._holders)

    @property
    def returning(self) -> int:
        """Blocks given up that were not taken back yet."""
        return len(self._returned)

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._leases.values())

    def __repr__(self) -> str:
        return f"<Leases {len(self)} of {self.held} blocks, budget {self.budget}>"

    def arrive(self) -> int:
        """A request has come: the number that orders the turns of its session."""
        self._turns += 1
        return self._turns

    def lease(self, offer: Offer, now: float) -> tuple[Answer, list[int]]:
        """Keep what a request leaves, in place of what its session held; also the blocks that nobody held before.

        What does not fit the budget is clipped from the tail. Of two requests of a session the one that came later
        wins, whichever ends first; one whose session was closed meanwhile gets nothing.
        """
        self.expire(now)
        of = len(offer.blocks)
        old = self._leases.get(offer.key)
        why = self._fenced(offer, old)
        if why:
            return self._answer(Answer(offer.key, "lease", "refused", why, of=of)), []
        until, why = self._until(offer.seconds, now)
        if old is not None:
            if offer.broken and old.until > until:
                until, why = old.until, ""
            self._end(old, "superseded")
        kept, short = self._fit(offer)
        if not kept:
            answer = Answer(
                offer.key, "lease", "refused", short or "it fills no block that could be found again", of=of
            )
            self._remember(offer.key, f"refused: {answer.why}")
            return self._answer(answer), []
        fresh = [block for block in kept if block not in self._holders]
        self._holders.update(kept)
        self._leases[offer.key] = Lease(offer.key, offer.turn, list(kept), of, until, offer.whole)
        heappush(self._heap, (until, offer.key))
        why = "; ".join(filter(None, (why, short)))
        result: Result = "clipped" if why else "accepted"
        return self._answer(Answer(offer.key, "lease", result, why, len(kept), of, until - now)), fresh

    def hold(self, key: str, seconds: float, now: float) -> Answer:
        """Let a lease end so long from now, be that later or sooner than it would have."""
        self.expire(now)
        lease = self._leases.get(key)
        if lease is None:
            return self._missing(key, "hold")
        lease.until, why = self._until(seconds, now)
        lease.demoted = False
        heappush(self._heap, (lease.until, key))
        self._sweep()
        left = f"{len(lease.blocks)} of {lease.of} blocks are left of it" if len(lease.blocks) < lease.of else ""
        why = "; ".join(filter(None, (why, left)))
        result: Result = "clipped" if why else "accepted"
        return self._answer(Answer(key, "hold", result, why, len(lease.blocks), lease.of, lease.until - now))

    def demote(self, key: str, now: float) -> Answer:
        """Let a lease be the first to give way, to other leases too. It keeps its end."""
        self.expire(now)
        lease = self._leases.get(key)
        if lease is None:
            return self._missing(key, "demote")
        lease.demoted = True
        return self._answer(Answer(key, "demote", "accepted", "", len(lease.blocks), lease.of, lease.until - now))

    def release(self, key: str, now: float) -> Answer:
        """End a lease now."""
        return self._over(key, "release", "released", now)

    def close(self, key: str, now: float) -> Answer:
        """End a lease now, and let the session's requests that still run leave none."""
        self._closed[key] = self._turns
        self._closed.move_to_end(key)
        if len(self._closed) > REMEMBERED:
            self._closed.popitem(last=False)
        return self._over(key, "close", "closed", now)

    def refuse(self, key: str, verb: str, why: str) -> Answer:
        """Answer a wish that makes no sense."""
        return self._answer(Answer(key, verb, "refused", why))

    def clear(self) -> None:
        """End every lease."""
        for lease in list(self):
            self._end(lease, "reset")

    def expire(self, now: float) -> None:
        """End the leases whose time is over."""
        while self._heap and self._heap[0][0] <= now:
            until, key = heappop(self._heap)
            lease = self._leases.get(key)
            if lease is not None and lease.until == until:
                self._end(lease, "expired")

    def relieve(self, need: int, gains: Callable[[int], bool]) -> int:
        """Give up blocks until `need` of them make room, as `gains` tells; returns how many do.

        Demoted leases go first, then those that would end soonest. Each gives its tail first: without its head the
        rest could not be found. One that has nothing to give is left alone.
        """
        gained = 0
        for lease in sorted(self, key=lambda each: (not each.demoted, each.until)):
            if gained >= need:
                break
            gained += self._trim(lease, need - gained, gains)
        return gained

    def gain(self, gains: Callable[[int], bool]) -> int:
        """Blocks that would make room if every lease gave way."""
        return sum(map(gains, self._holders))

    def take(self) -> list[int]:
        """Blocks that left a lease and that nobody holds: each is to be given back once, in this order."""
        returned, self._returned = self._returned, []
        return returned

    def _fenced(self, offer: Offer, old: Lease | None) -> str:
        if self._closed.get(offer.key, 0) >= offer.turn:
            return "the session was closed while this request ran"
        if old is not None and old.turn > offer.turn:
            return "a later request of the session has left its own"
        if old is not None and offer.broken and len(offer.blocks) <= len(old.blocks):
            return "it was broken off and leaves no more than is held"
        return ""

    def _fit(self, offer: Offer) -> tuple[tuple[int, ...], str]:
        """The head of the offer for which the session's limit and the budget have room, and what has been short."""
        of = len(offer.blocks)
        wanted = offer.blocks if offer.most is None else offer.blocks[: offer.most]
        self._demoted_give_way(wanted)
        room = self.budget - self.held
        fits = len(wanted)
        for place, block in enumerate(wanted):
            room -= block not in self._holders
            if room < 0:
                fits = place
                break
        if fits == of:
            return wanted, ""
        if offer.whole:
            fits = 0
        limit = (
            f"its session's limit of {offer.most}" if room >= 0 else f"the budget of {self.budget}, {self.held} held"
        )
        return wanted[:fits], f"{fits} of {of} blocks fit {limit}"

    def _demoted_give_way(self, wanted: tuple[int, ...]) -> None:
        short = sum(block not in self._holders for block in wanted) - (self.budget - self.held)
        inside = frozenset(wanted)
        for lease in [each for each in self if each.demoted] if short > 0 else ():
            if short > 0:
                short -= self._trim(lease, short, lambda block: block not in inside)

    def _until(self, seconds: float, now: float) -> tuple[float, str]:
        if seconds <= self.longest:
            return now + seconds, ""
        return now + self.longest, f"{seconds:g} s are more than the {self.longest:g} s that a lease may last"

    def _trim(self, lease: Lease, need: int, gains: Callable[[int], bool]) -> int:
        gained = 0
        if not any(self._holders[block] == 1 and gains(block) for block in lease.blocks):
            return 0
        while lease.blocks and (gained < need or lease.whole):
            block = lease.blocks.pop()
            self.yielded += 1
            gained += self._drop(block) and gains(block)
        if not lease.blocks:
            self._end(lease, "gave way")
        return gained

    def _drop(self, block: int) -> bool:
        """One lease less holds this block; was it the last?"""
        self._holders[block] -= 1
        if self._holders[block]:
            return False
        del self._holders[block]
        self._returned.append(block)
        return True

    def _end(self, lease: Lease, why: Ending) -> None:
        for block in reversed(lease.blocks):
            self._drop(block)
        del self._leases[lease.key]
        self.ends[why] += 1
        self._remember(lease.key, why)
        self._sweep()

    def _remember(self, key: str, why: str) -> None:
        self._gone[key] = why
        self._gone.move_to_end(key)
        if len(self._gone) > REMEMBERED:
            self._gone.popitem(last=False)

    def _sweep(self) -> None:
        """Entries of leases that ended, or end otherwise now, stay in the heap until they are most of it."""
        if len(self._heap) > 2 * len(self._leases) + 64:
            self._heap = [(lease.until, key) for key, lease in self._leases.items()]
            heapify(self._heap)

    def _over(self, key: str, verb: Verb, why: Ending, now: float) -> Answer:
        self.expire(now)
        lease = self._leases.get(key)
        if lease is None:
            return self._missing(key, verb)
        self._end(lease, why)
        return self._answer(Answer(key, verb, "accepted", of=lease.of))

    def _missing(self, key: str, verb: Verb) -> Answer:
        gone = self._gone.get(key)
        why = f"its last lease has ended: {gone}" if gone else "no finished request of this session left one"
        return self._answer(Answer(key, verb, "missing", why))

    def _answer(self, answer: Answer) -> Answer:
        self.results[answer.verb, answer.answer] += 1
        return answer
