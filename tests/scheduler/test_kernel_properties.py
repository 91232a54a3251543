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
    events: list[tuple[Event, float]] = []

    def play(stage: Stage) -> None:
        running: dict[str, int] = {}
        known: dict[str, tuple[str, int]] = {}
        for number, (move, who, size) in enumerate(moves):
            alive = sorted(known)
            turn = alive[who % len(alive)] if alive else None
            event: Event | None = None
            if move == "arrive":
                name = f"t{number}"
                known[name] = (f"p{who}", size)
                event = Arrived(TurnId(name), ProgramId(f"p{who}"), "main", ROOT, tuple(range(who, who + size)), 8)
            elif move == "wait":
                event = Tick()
                stage.now += size
            elif move == "close":
                event = Closed(ProgramId(f"p{who}"))
            elif turn is not None and move == "cancel":
                event = Cancelled(TurnId(turn))
                known.pop(turn)
            elif turn is not None and turn in running:
                if move == "step":
                    event = Stepped((Progress(TurnId(turn), running[turn], (7,)),))
                    running[turn] = 1
                else:
                    event = Paused(TurnId(turn), ("t",)) if move == "pause" else Finished(TurnId(turn))
                    known.pop(turn)
            if event is None:
                continue
            events.append((event, stage.now))
            queue = list(stage.tell(event))
            if isinstance(event, Stepped):
                events.append((NeedRoom((event.progress[0].turn,)), stage.now))
                queue += stage.tell(NeedRoom((event.progress[0].turn,)))
            for effect in queue:
                match effect:
                    case Start(turn=name, reuse=reuse):
                        running[name] = len(stage.kernel._turns[name].tokens) - reuse
                    case Preempt(turn=name):
                        running.pop(name)
                    case Refuse(turn=name) | Stop(turn=name):
                        known.pop(name, None)
                        running.pop(name, None)
                    case _:
                        pass
        # Everything that runs ends, time passes: whoever waits must have started, or been refused.
        for _ in range(len(moves) + 1):
            stage.tell(Tick(), after=1000.0)
            for name in list(stage.kernel._running):
                stage.tell(Finished(name))
        assert stage.kernel.waiting == 0
        assert stage.kernel.held == 0
        stage.kernel.check()

    first = Stage(policy, room=8)
    play(first)
    second = Kernel(Ledger(8, PAGE, rank=named(policy).evict), named(policy))
    again = [effect for event, now in events for effect in second.handle(event, now)]
    assert again == first.log[: len(again)]
