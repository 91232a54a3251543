"""Hints from outside: each is answered, and none changes what is said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sostenuto.kvstore import BlockHash
from sostenuto.kvstore.record import links
from sostenuto.kvstore.tiers import HostTier
from sostenuto.runtime.below import Below
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.errors import UnknownMark
from sostenuto.runtime.host import Host
from sostenuto.runtime.loop import Loop
from sostenuto.runtime.session import Session
from sostenuto.scheduler import Closed, Effect, Interrupted, Move, ProgramId, Tick

from .conftest import Gated, Pair, Stage, draw, read, still


@pytest.fixture
def host(tiny: Pair) -> Iterator[Host]:
    with Host(TorchEngine(tiny.ours, pool_tokens=256), below=[Below(HostTier())]) as host:
        yield host
        host.loop.ask()


def stage(host: Host) -> Stage:
    return Stage(host.loop)


def pause(host: Host, tokens: list[int], session: str = "s") -> None:
    """A session of the default tenant that waits for a tool."""
    program = f"default/{session}"
    read(stage(host).submit(tokens, program, tools_called=lambda text, reason: ("search",), max_tokens=4))
    still(host.loop)


def pinned(host: Host) -> int:
    """Pages under pins, after the time of whatever was pinned for a microsecond."""
    host.tell(Tick())
    host.loop.ask()
    return host.loop.kernel.pins.pages


def ask(host: Host, verb: str, tenant: str = "default", **payload: Any) -> tuple[str, int, int]:
    payload.setdefault("target", {"session": "s"})
    action = {"action_id": "a", "action_type": verb, "action_version": "1", "payload": payload}
    message = {"protocol_version": "0.1", "message_id": "m", "actions": [action]}
    (reply,) = host.hint(message, tenant=tenant)
    return reply.outcome, reply.asked, reply.granted


def test_a_pin_keeps_a_context_within_the_budget_and_says_how_much(host: Host) -> None:
    pause(host, draw(100))
    assert ask(host, "Pin", seconds=60) == ("clipped", 13, 8)  # a quarter of the pool of 32 pages
    host.tell(Interrupted(ProgramId("default/s")))
    for number in range(4):
        stage(host).say(draw(150, seed=number), f"default/rival{number}", max_tokens=2)
    assert stage(host).say(draw(100), "default/t").end.facts.tier == "host", "its end was fetched"
    assert host.loop.kernel.pins.pages == 8


def test_a_pin_ends_with_its_time_and_what_it_kept_can_be_found_until_its_pages_are_wanted(host: Host) -> None:
    pause(host, draw(40))
    assert ask(host, "Pin", seconds=1e-6) == ("accepted", 6, 6)
    assert pinned(host) == 0
    host.tell(Closed(ProgramId("default/s")))
    assert "0/32 taken" in host.loop.ask(), "nothing leaked"
    facts = stage(host).say(draw(40), "default/t").end.facts
    assert (facts.reused_tokens, facts.tier) == (39, "device")


def test_pinning_twice_restarts_the_clock_and_adds_nothing(host: Host) -> None:
    pause(host, draw(40))
    assert ask(host, "Pin", seconds=60) == ask(host, "Pin", seconds=60) == ("accepted", 6, 6)
    assert (len(host.loop.kernel.pins), pinned(host)) == (1, 6)
    ask(host, "Pin", seconds=1e-6)
    assert pinned(host) == 0, "the last word counts"
    ask(host, "Pin", seconds=1e-6)
    ask(host, "Pin", seconds=60)
    assert pinned(host) == 6


def test_a_pin_that_ends_while_a_turn_stands_on_it_takes_nothing_from_that_turn(tiny: Pair) -> None:
    gate = Gated(tiny.ours, pool_tokens=256)
    with Host(gate) as host:
        ticket = stage(host).submit(draw(40), "default/s", tools_called=lambda text, reason: ("search",), max_tokens=4)
        gate.let(4)
        first = read(ticket)
        for _ in range(4):
            gate.wait()
        target = {"blocks": blocks_of(host, draw(40))}
        assert ask(host, "Pin", seconds=60, target=target) == ("accepted", 5, 5)
        tokens = [*draw(40), *first.tokens, 7]
        ticket = stage(host).submit(tokens, "default/s", max_tokens=4)
        gate.wait()
        ask(host, "Pin", seconds=1e-6, target=target)
        assert pinned(host) == 0
        rival = stage(host).submit(draw(230, seed=1), "default/rival", max_tokens=2)
        assert "1 waiting | 1 running" in host.loop.ask(), "it would need the pages that were pinned"
        gate.open()
        going = read(ticket)
        assert going.end.facts.reused_tokens == 43
        read(rival)
        host.loop.ask()
    with Host(TorchEngine(tiny.ours, pool_tokens=256)) as alone:
        assert stage(alone).say(tokens, max_tokens=4).tokens == going.tokens


def test_of_two_pins_on_a_shared_beginning_one_that_ends_leaves_the_other(host: Host) -> None:
    pause(host, draw(40), "s")
    pause(host, [*draw(32), 1, 2, 3], "t")
    ask(host, "Pin", seconds=60)
    ask(host, "Pin", seconds=60, target={"session": "t"})
    assert pinned(host) == 7, "four pages of both, two of one and one of the other"
    ask(host, "Pin", seconds=1e-6)
    assert pinned(host) == 5
    for session in "st":
        host.tell(Closed(ProgramId(f"default/{session}")))
    for number in range(4):
        stage(host).say(draw(150, seed=number), f"default/rival{number}", max_tokens=2)
    facts = stage(host).say([*draw(32), 1, 2, 3, 4], "default/u").end.facts
    assert (facts.reused_tokens, facts.tier) == (35, "device"), "no pressure took what is pinned still"


def test_another_tenants_session_is_missing(host: Host) -> None:
    pause(host, draw(40))
    assert ask(host, "Pin", "other", seconds=60) == ("missing", 0, 0)


def test_what_is_demoted_leaves_first_and_is_copied_where_it_is_said(host: Host) -> None:
    pause(host, draw(40))
    assert ask(host, "Demote", tier="nowhere")[0] == "rejected"
    assert ask(host, "Demote", tier="host") == ("accepted", 6, 6)  # its copy was made when it paused
    assert "0 held by 0" in host.loop.ask()


def test_what_is_told_by_its_blocks_is_fetched_before_anybody_asks(host: Host) -> None:
    pause(host, draw(64))
    host.tell(Interrupted(ProgramId("default/s")))
    still(host.loop)
    names = blocks_of(host, draw(64))
    for number in range(3):
        stage(host).say(draw(200, seed=number), f"default/rival{number}", max_tokens=2)
    host.loop.within(clear(host.loop)).result()
    assert ask(host, "Prefetch", target={"blocks": names}) == ("deferred", 8, 8)
    still(host.loop)
    assert ask(host, "Prefetch", target={"blocks": names}) == ("accepted", 8, 8)
    facts = stage(host).say([*draw(64), 1, 2], "default/t").end.facts
    assert (facts.reused_tokens, facts.tier) == (64, "device")


def blocks_of(host: Host, tokens: list[int]) -> list[str]:
    """The names of the full blocks of a context of the default tenant."""
    root = BlockHash(bytes.fromhex(host.root()))
    return [link.name.hex() for link in links(tokens, 8, root) if len(link.tokens) == 8]


def test_a_context_is_fetched_once_however_often_that_is_asked_for_and_its_end_where_its_beginning_is_there(
    host: Host,
) -> None:
    pause(host, draw(64))
    host.tell(Interrupted(ProgramId("default/s")))
    still(host.loop)
    names = blocks_of(host, draw(64))
    host.loop.within(clear(host.loop)).result()
    stage(host).say(draw(17), "default/t", max_tokens=1)
    moves: list[Effect] = []
    host.loop.watch(lambda effect: moves.append(effect) if isinstance(effect, Move) else None)
    wish = {"action_id": "a", "action_type": "Prefetch", "action_version": "1"}
    actions = [{**wish, "action_id": str(n), "payload": {"target": {"blocks": names}}} for n in range(3)]
    replies = host.hint({"protocol_version": "0.1", "message_id": "m", "actions": actions})
    assert [(one.outcome, one.asked, one.granted) for one in replies] == [("deferred", 8, 8)] * 3
    still(host.loop)
    assert [len(move.blocks) for move in moves if isinstance(move, Move)] == [6]
    facts = stage(host).say([*draw(64), 1, 2], "default/u").end.facts
    assert (facts.reused_tokens, facts.tier) == (64, "device")


def test_what_is_demoted_to_a_tier_while_it_is_copied_is_there_when_it_has_left_the_device(host: Host) -> None:
    read(stage(host).submit(draw(40), "default/s", tools_called=lambda text, reason: ("search",), max_tokens=4))
    outcome, asked, granted = ask(host, "Demote", tier="host")
    assert (outcome in ("deferred", "accepted"), asked, granted) == (True, 6, 6)
    still(host.loop)
    stage(host).say(draw(220, seed=1), "default/rival", max_tokens=2)
    facts = stage(host).say([*draw(40), 1], "default/t").end.facts
    assert (facts.reused_tokens, facts.tier) == (40, "host")


async def clear(loop: Loop) -> None:
    """Free the pool, so that something can be fetched for nobody in particular."""
    loop.kernel.ledger.clear()


def test_sharing_and_retaining_are_accepted_for_what_is_held(host: Host) -> None:
    pause(host, draw(40))
    assert ask(host, "Share", width=3)[0] == "accepted"
    assert ask(host, "Retain", steps=1)[0] == "accepted"


@pytest.mark.parametrize("message", ["no json", 7, {"actions": []}, {"protocol_version": "9", "message_id": "m"}])
def test_nonsense_is_rejected_with_the_reason(host: Host, message: Any) -> None:
    (reply,) = host.hint(message)
    assert (reply.outcome, bool(reply.why)) == ("rejected", True)


@pytest.mark.parametrize("nonsense", ["[" * 100_000, b"x", object(), {1, 2}], ids=["deep", "bytes", "object", "set"])
def test_what_is_not_even_json_is_answered(host: Host, nonsense: object) -> None:
    (reply,) = host.hint(nonsense)
    assert reply.outcome == "rejected"


def test_a_session_and_its_marks_can_be_aimed_at(host: Host) -> None:
    with Session(host, tenant="acme") as session:
        session.feed(draw(40))
        session.generate(4)
        session.mark("here")
        host.loop.ask()
        for target, tenant, outcome in (
            (session.target(), "acme", "accepted"),
            (session.target("here"), "acme", "accepted"),
            (session.target("here"), "other", "missing"),
        ):
            assert ask(host, "Retain", tenant, target=target, steps=1)[0] == outcome
        with pytest.raises(UnknownMark):
            session.target("there")
