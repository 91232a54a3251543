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
from sostenuto.runtime.host import Host
from sostenuto.runtime.loop import Loop
from sostenuto.scheduler import Interrupted, ProgramId

from .conftest import Pair, Stage, draw, read, still


@pytest.fixture
def host(tiny: Pair) -> Iterator[Host]:
    with Host(TorchEngine(tiny.ours, pool_tokens=256), below=[Below(HostTier())]) as host:
        yield host
        host.loop.ask()


def stage(host: Host) -> Stage:
    return Stage(host.loop)


def pause(host: Host, tokens: list[int]) -> None:
    """A session of the default tenant that waits for a tool."""
    read(stage(host).submit(tokens, "default/s", tools_called=lambda text, reason: ("search",), max_tokens=4))
    still(host.loop)


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
    root = BlockHash(bytes.fromhex(host.root()))
    names = [link.name.hex() for link in links(draw(64), 8, root)]
    for number in range(3):
        stage(host).say(draw(200, seed=number), f"default/rival{number}", max_tokens=2)
    host.loop.within(clear(host.loop)).result()
    assert ask(host, "Prefetch", target={"blocks": names}) == ("deferred", 8, 8)
    still(host.loop)
    assert ask(host, "Prefetch", target={"blocks": names}) == ("accepted", 8, 8)
    facts = stage(host).say([*draw(64), 1, 2], "default/t").end.facts
    assert (facts.reused_tokens, facts.tier) == (64, "device")


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
