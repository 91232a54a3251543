"""How a workload is run: whose its sessions are, in which order they come, how times and lengths are scaled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from random import Random

from ...scheduler.simulator import Call, Session, Workload, common

STAGGER_S = 30.0
"""Within so many seconds the users begin, before pauses are divided."""
_BITS = 48


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
    times: int = 1
    """Each session comes so often, every time with tokens of its own but for what all sessions begin with."""

    def __post_init__(self) -> None:
        for name in ("tenants", "tokens", "pauses", "times"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: found {getattr(self, name)}; expected more than 0")


def arranged(workload: Workload, asked: Arrangement) -> Workload:
    """The workload as it is to be run. With users, its sessions begin as users come free, in an order by the seed."""
    if workload.granule % asked.tokens:
        raise ValueError(
            f"scale of tokens: found {asked.tokens}; expected a divisor of {workload.granule}, the tokens of a granule"
        )
    timed = workload.timed and asked.users is None
    sessions, notes = workload.sessions, workload.notes
    if asked.times > 1:
        if not isinstance(sessions, list):
            raise ValueError("times: these sessions are made up as they come; ask for more of them instead")
        notes = (*notes, f"each session comes {asked.times} times, with other tokens but for what all begin with")
    if isinstance(sessions, list):
        sessions = _chosen(sessions, asked, timed)
    granule = workload.granule // asked.tokens
    return replace(workload, sessions=_Scaled(sessions, asked), granule=granule, timed=timed, notes=notes)


def _chosen(sessions: list[Session], asked: Arrangement, timed: bool) -> list[Session]:
    middle = len(sessions) // 2
    chosen = {None: sessions, 1: sessions[:middle], 2: sessions[middle:]}[asked.half]
    shared = _shared(chosen)
    chosen = [_again(session, time, shared) for time in range(asked.times) for session in chosen]
    if not timed:
        Random(f"order {asked.seed}").shuffle(chosen)
    return chosen


def _shared(sessions: list[Session]) -> int:
    """Granules that all sessions begin with."""
    prompts = [session.calls[0].add for session in sessions if session.calls]
    return min((common(prompts[0], prompt) for prompt in prompts), default=0)


def _again(session: Session, time: int, shared: int) -> Session:
    """The same session with other tokens: the number of the time stands above the bits that traces use."""
    if time == 0:
        return session

    def other(tokens: tuple[int, ...], since: int = 0) -> tuple[int, ...]:
        return (*tokens[:since], *(token ^ time << _BITS for token in tokens[since:]))

    def renamed(number: int, call: Call) -> Call:
        return replace(call, add=other(call.add, 0 if number else shared), say=other(call.say))

    calls = tuple(renamed(number, call) for number, call in enumerate(session.calls))
    return replace(session, name=f"{session.name} again {time}", calls=calls)


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
