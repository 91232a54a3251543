"""How a workload is run: whose its sessions are, in which order they come, how times and lengths are scaled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from random import Random

from ...scheduler.simulator import Session, Workload

STAGGER_S = 30.0
"""Within so many seconds the users begin, before pauses are divided."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Lengths are divided by `tokens`, pauses by `pauses`; `tenants` have the sessions in turn."""

    seed: int = 0
    users: int | None = None
    tenants: int = 4
    sessions: int | None = None
    """So many are run; None: all."""
    tokens: int = 1
    pauses: float = 1.0
    half: int | None = None
    """Only the sessions of one half, as they stand in the file: 1 or 2."""

    def __post_init__(self) -> None:
        for name in ("tenants", "tokens", "pauses"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: found {getattr(self, name)}; expected more than 0")


def arranged(workload: Workload, asked: Arrangement) -> Workload:
    """The workload as it is to be run. With users, its sessions begin as users come free, in an order by the seed."""
    if workload.granule % asked.tokens:
        raise ValueError(
            f"tokens: found {asked.tokens}; expected a divisor of {workload.granule}, the tokens of a granule"
        )
    timed = workload.timed and asked.users is None
    sessions = workload.sessions
    if isinstance(sessions, list):
        sessions = _chosen(sessions, asked, timed)
    return replace(workload, sessions=_Scaled(sessions, asked), granule=workload.granule // asked.tokens, timed=timed)


def _chosen(sessions: list[Session], asked: Arrangement, timed: bool) -> list[Session]:
    middle = len(sessions) // 2
    chosen = {None: sessions, 1: sessions[:middle], 2: sessions[middle:]}[asked.half]
    chosen = list(chosen)
    if not timed:
        Random(f"order {asked.seed}").shuffle(chosen)
    return chosen


@dataclass(frozen=True, slots=True)
class _Scaled:
    """Sessions one by one, so that a day of them need not be kept."""

    sessions: Iterable[Session]
    asked: Arrangement

    def __iter__(self) -> Iterator[Session]:
        asked = self.asked
        random = Random(f"begins {asked.seed}")
        users = asked.users or 0
        for number, session in enumerate(self.sessions):
            if number == asked.sessions:
                return
            at = session.at if asked.users is None else random.uniform(0, STAGGER_S) if number < users else 0.0
            calls = session.calls
            if asked.tokens != 1 or asked.pauses != 1:
                calls = tuple(
                    replace(call, out=-(-call.out // asked.tokens), pause=call.pause / asked.pauses) for call in calls
                )
            tenant = session.tenant if session.tenant != "default" else f"tenant-{number % asked.tenants + 1}"
            yield replace(session, calls=calls, tenant=tenant, at=at / asked.pauses)
