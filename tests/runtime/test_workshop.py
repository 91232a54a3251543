"""Grammars in the making: nobody's loop waits for one, nobody waits for ever, and what is given up is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest

from sostenuto.runtime.ticket import Ticket
from sostenuto.runtime.workshop import Workshop
from sostenuto.tools import Grammar, GrammarRefused
from sostenuto.tools.grammars.llguidance import LLGuidanceCompiler

KEY = "tools"


class Slow:
    """Work that is done when it is told to be."""

    def __init__(self) -> None:
        self.begun = Event()
        self.go = Event()

    def __call__(self) -> Grammar | None:
        self.begun.set()
        assert self.go.wait(60)
        return None


@pytest.fixture
def slow() -> Any:
    work = Slow()
    yield work
    work.go.set()


def handed(taken: list[Any]) -> Callable[[Grammar | None, Ticket | None], Ticket]:
    def submit(grammar: Grammar | None, ticket: Ticket | None) -> Ticket:
        taken.append(grammar)
        return (ticket or Ticket(lambda: None)).passed(lambda: taken.append("cancelled"))

    return submit


def test_a_grammar_is_what_was_built() -> None:
    compiler = LLGuidanceCompiler.alone()
    built = Workshop().begin(KEY, lambda: compiler.schema({"type": "boolean"})).result()
    assert built is not None
    assert all(built.accept(byte) for byte in b"true")


def test_what_takes_too_long_is_refused_and_at_once_when_it_is_asked_again(slow: Slow) -> None:
    workshop = Workshop(deadline=0.05)
    with pytest.raises(GrammarRefused, match=r"more than 0\.05 s to build"):
        workshop.begin(KEY, slow).result()
    again = workshop.begin(KEY, slow)
    assert again.done()
    with pytest.raises(GrammarRefused, match="still does"):
        again.result()
    assert workshop.begin("other tools", lambda: None).result() is None


def test_what_was_late_can_be_asked_for_when_it_is_done(slow: Slow) -> None:
    workshop = Workshop(deadline=0.05)
    with pytest.raises(GrammarRefused):
        workshop.begin(KEY, slow).result()
    slow.go.set()
    while KEY in workshop._late:
        Event().wait(0.001)
    assert workshop.begin(KEY, lambda: None).result() is None


def test_so_many_are_in_the_making_and_no_more(slow: Slow) -> None:
    workshop = Workshop(most=2)
    first = [workshop.begin(f"{place}", slow) for place in range(2)]
    with pytest.raises(GrammarRefused, match="ask again later"):
        workshop.begin("third", slow).result()
    slow.go.set()
    assert [each.result() for each in first] == [None, None]


def test_in_an_event_loop_nothing_waits_and_errors_come_out_of_the_ticket(slow: Slow) -> None:
    workshop, taken, came = Workshop(deadline=0.05), list[Any](), Event()

    def submit(grammar: Grammar | None, ticket: Ticket | None) -> Ticket:
        came.set()
        return handed(taken)(grammar, ticket)

    async def asked() -> None:
        ticket = workshop.bring(KEY, slow, handed(taken))
        others = workshop.bring("other tools", lambda: None, submit)
        # Another session's comes while the first one's is in the making.
        assert await asyncio.to_thread(came.wait, 60)
        assert isinstance(others, Ticket)
        with pytest.raises(GrammarRefused, match="to build"):
            async for _ in ticket:
                pass

    asyncio.run(asked())
    assert taken == [None]


def test_on_a_thread_of_its_own_the_asker_waits_and_gets_the_error() -> None:
    def refused() -> Grammar | None:
        raise GrammarRefused("this", "it is odd")

    with pytest.raises(GrammarRefused, match="it is odd"):
        Workshop().bring(KEY, refused, handed([]))


def test_a_turn_that_was_given_up_meanwhile_does_not_arrive(slow: Slow) -> None:
    workshop, taken = Workshop(), list[Any]()

    async def asked() -> None:
        ticket = workshop.bring(KEY, slow, handed(taken))
        assert await asyncio.to_thread(slow.begun.wait, 60)
        ticket.cancel()

    asyncio.run(asked())
    slow.go.set()
    while workshop._making:
        Event().wait(0.001)
    assert taken == []


def test_a_ticket_in_new_hands_tells_them_of_a_cancellation_that_was_before() -> None:
    told: list[str] = []
    ticket = Ticket(lambda: told.append("old"))
    ticket.cancel()
    assert ticket.passed(lambda: told.append("new")) is ticket
    assert told == ["old", "new"]
