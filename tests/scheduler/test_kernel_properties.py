"""Random lives of many programs: the books balance, nothing waits for ever, and a replay gives the same effects."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sostenuto.kvstore import Ledger
from sostenuto.scheduler import (
    POLICIES,
    Arrived,
    Cancelled,
    Closed,
    Event,
    Finished,
    Kernel,
    NeedRoom,
    Paused,
    Preempt,
    ProgramId,
    Progress,
    Refuse,
    Start,
    Stepped,
    Stop,
    Tick,
    TurnId,
    named,
)
from sostenuto.tests.scheduler.stage import PAGE, ROOT, Stage

moves = st.lists(
    st.tuples(
        st.sampled_from(["arrive", "step", "pause", "finish", "cancel", "close", "wait"]),
        st.integers(0, 5),
        st.integers(1, 30),
    ),
    max_size=60,
)


@given(policy=st.sampled_from(sorted(POLICIES)), moves=moves)
@settings(deadline=None, max_examples=150)
def test_the_books_balance_nothing_waits_for_ever_and_the_same_events_give_the_same_effects(
    policy: str, moves: list[tuple[str, int, int]]
) -> None:
    life = Life(policy)
    for number, (move, who, size) in enumerate(moves):
        event = life.next(number, move, who, size)
        if event is not None:
            life.tell(event)
            if isinstance(event, Stepped):
                life.tell(NeedRoom((event.progress[0].turn,)))
    life.end()
    again = Kernel(Ledger(8, PAGE, rank=named(policy).evict), named(policy))
    effects = [effect for event, now in life.events for effect in again.handle(event, now)]
    assert effects == life.stage.log


class Life:
    """What the world does to a kernel, and which turns run and are known by now."""

    def __init__(self, policy: str) -> None:
        self.stage = Stage(policy, room=8)
        self.events: list[tuple[Event, float]] = []
        self.known: set[str] = set()
        self.missing: dict[str, int] = {}

    def next(self, number: int, move: str, who: int, size: int) -> Event | None:
        """The event of a move, if it makes sense now."""
        alive = sorted(self.known)
        turn = alive[who % len(alive)] if alive else ""
        match move:
            case "arrive":
                self.known.add(f"t{number}")
                tokens = tuple(range(who, who + size))
                return Arrived(TurnId(f"t{number}"), ProgramId(f"p{who}"), "main", ROOT, tokens, 8)
            case "wait":
                self.stage.now += size
                return Tick()
            case "close":
                return Closed(ProgramId(f"p{who}"))
            case "cancel" if turn:
                self.forget(turn)
                return Cancelled(TurnId(turn))
            case "step" if turn in self.missing:
                computed, self.missing[turn] = self.missing[turn], 1
                return Stepped((Progress(TurnId(turn), computed, (7,)),))
            case "pause" | "finish" if turn in self.missing:
                self.forget(turn)
                return Paused(TurnId(turn), ("t",)) if move == "pause" else Finished(TurnId(turn))
        return None

    def tell(self, event: Event, *, after: float = 0.0) -> None:
        effects = self.stage.tell(event, after=after)
        self.events.append((event, self.stage.now))
        for effect in effects:
            match effect:
                case Start(turn=name, reuse=reuse):
                    self.missing[name] = len(self.stage.kernel.books.turns[name].tokens) - reuse
                case Preempt(turn=name):
                    del self.missing[name]
                case Refuse(turn=name) | Stop(turn=name):
                    self.forget(name)
                case _:
                    pass

    def forget(self, name: str) -> None:
        self.known.discard(name)
        self.missing.pop(name, None)

    def end(self) -> None:
        """Everything that runs ends, time passes: whoever waits must start, or be refused."""
        for _ in range(len(self.known) + 1):
            self.tell(Tick(), after=1000.0)
            for name in sorted(self.missing):
                self.forget(name)
                self.tell(Finished(TurnId(name)))
        assert self.stage.kernel.books.waiting == 0
        assert self.stage.kernel.books.held == 0
        self.stage.kernel.books.check()
