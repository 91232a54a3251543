"""Leases on a real vLLM, told by the tokens it found in its cache."""

from __future__ import annotations

import asyncio
import string
from contextlib import aclosing
from typing import Any

import pytest

from sostenuto.runtime.ask import Ask, Message
from sostenuto.runtime.engines import Job
from sostenuto.runtime.engines.vllm.engine import VllmEngine
from sostenuto.runtime.errors import EngineFailed
from sostenuto.runtime.host import Host
from sostenuto.runtime.sampling import Sampling
from sostenuto.scheduler import TurnId, lease_key
from sostenuto.tools import Choice, Tool, validators

from .conftest import ROOM, Server, cached, prompt, turn

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TURN = 1024


async def paused(engine: VllmEngine, server: Server, key: str, *, hold: float | None) -> list[int]:
    """A first turn, then the traffic of others while its tool runs; the prompt of the second turn."""
    first = prompt(TURN)
    said = await turn(engine, first, key)
    if hold is not None:
        await engine.hold(key, hold)
    await asyncio.to_thread(server.churn)
    return [*first, *(one.token for one in said if one.token is not None), *prompt(64)]


# -- what a hold is worth


async def test_a_held_turn_keeps_its_tokens_under_pressure_and_one_that_is_not_held_keeps_none(
    server: Server, engine: VllmEngine
) -> None:
    held = await paused(engine, server, "held", hold=60)
    assert cached(await turn(engine, held, "held")) >= 0.9 * TURN
    lost = await paused(engine, server, "", hold=None)
    assert cached(await turn(engine, lost)) == 0


async def test_a_turn_whose_tool_never_came_back_loses_its_lease_without_a_step_of_the_engine(
    server: Server, engine: VllmEngine
) -> None:
    first = prompt(TURN)
    await turn(engine, first, "a")
    await engine.hold("a", 0.5)
    assert list(server.leases().values()) == [TURN // 32]
    await asyncio.to_thread(server.until, server.leases, {})
    assert server.table()["pool"]["returning"] == TURN // 32  # nobody has come by since
    await asyncio.to_thread(server.churn)
    assert server.table()["pool"]["returning"] == 0
    assert cached(await turn(engine, first)) == 0


async def test_a_released_turn_keeps_nothing(server: Server, engine: VllmEngine) -> None:
    first = prompt(TURN)
    await turn(engine, first, "a")
    await engine.hold("a", 60)
    await engine.release("a")
    await asyncio.to_thread(server.churn)
    assert cached(await turn(engine, first)) == 0


async def test_a_newer_turn_supersedes_the_hold_of_the_one_before(server: Server, engine: VllmEngine) -> None:
    first = prompt(320)
    await turn(engine, first, "a")
    await engine.hold("a", 60)
    said = await turn(engine, [*first, *prompt(320)], "a")
    assert cached(said) == 320
    assert list(server.leases().values()) == [20]
    await engine.hold("a", 60)
    await asyncio.to_thread(server.churn)
    assert cached(await turn(engine, first)) == 320 - 32  # the last token of a prompt is always computed


async def test_forked_branches_share_what_is_held(server: Server, engine: VllmEngine) -> None:
    root = prompt(TURN)
    await turn(engine, root, "root")
    await engine.hold("root", 60)
    await asyncio.to_thread(server.churn)
    branches = await asyncio.gather(*(turn(engine, [*root, *prompt(16)], f"branch {n}") for n in range(4)))
    assert [cached(said) for said in branches] == [TURN] * 4


async def test_another_salt_shares_nothing(server: Server, engine: VllmEngine) -> None:
    root = prompt(TURN)
    await turn(engine, root, "a", salt="aa")
    assert cached(await turn(engine, [*root, 1], salt="aa")) == TURN
    assert cached(await turn(engine, [*root, 1], salt="bb")) == 0


async def test_a_turn_that_ends_with_a_stop_string_is_held_as_well(server: Server, engine: VllmEngine) -> None:
    sampling = Sampling(max_tokens=300, temperature=1.0, seed=1, stop=tuple(string.ascii_letters))
    said = await turn(engine, prompt(320), "a", sampling=sampling)
    assert said[-1].end == "stop"
    assert not set(string.ascii_letters) & set("".join(one.text for one in said))
    await engine.hold("a", 60)
    assert sum(server.leases().values()) >= 10


# -- what is answered


def test_a_lease_beyond_the_budget_is_clipped_and_then_refused_and_says_so(server: Server) -> None:
    first, second, third = server.lease("a", 1504), server.lease("b", 320), server.lease("c", 320)
    assert (first["answer"], first["tokens"]) == ("accepted", 1504)
    assert (second["answer"], second["blocks"], second["of"]) == ("clipped", 2, 10)
    assert (third["answer"], third["why"]) == ("refused", "0 of 10 blocks fit the budget of 49, 49 held")
    (late,) = server.act({"session": "c", "verb": "hold", "seconds": 60})
    assert (late["answer"], late["why"]) == ("missing", f"its last lease has ended: refused: {third['why']}")


@pytest.mark.parametrize("wish", [7, {}, {"session": 5}, {"session": "a", "lease_s": "soon"}, {"session": "a", "x": 1}])
def test_a_malformed_wish_is_refused_and_the_turn_runs(server: Server, wish: object) -> None:
    said, _, answer = server.complete(prompt(64), 3, kv_transfer_params={"sostenuto": wish})
    assert len(said) == 3
    assert answer["answer"] == "refused"
    assert "expected" in answer["why"]


def test_actions_are_answered_one_by_one(server: Server) -> None:
    server.lease("a", 64)
    wanted = [
        ({"session": "a", "verb": "hold", "seconds": 30}, "accepted"),
        ({"session": "a", "verb": "hold", "seconds": 10_000}, "clipped"),
        ({"session": "b", "verb": "hold", "seconds": 30}, "missing"),
        ({"session": "a", "verb": "dance"}, "refused"),
        (None, "refused"),
        ({"session": "a", "verb": "close"}, "accepted"),
    ]
    answers = server.act(*(action for action, _ in wanted))
    assert [answer["answer"] for answer in answers] == [expected for _, expected in wanted]
    assert server.leases() == {}


@pytest.mark.parametrize("body", [b"{", b'{"session": "a"}', b"[" + b"1," * 2000 + b"1]"])
def test_a_body_that_is_no_list_of_actions_is_refused(server: Server, body: bytes) -> None:
    assert server.client.post("/sostenuto/leases", content=body).status_code == 400


async def test_a_hold_on_nothing_says_why(server: Server, engine: VllmEngine) -> None:
    with pytest.raises(EngineFailed, match="does not hold nobody: no finished request of this session left one"):
        await engine.hold("nobody", 60)


# -- leases never stand against a request


def test_a_waiting_request_gets_the_room_it_needs_and_not_more(server: Server) -> None:
    server.lease("a", 1504)
    before = server.metric("num_preemptions_total")
    said, _, _ = server.complete(prompt(1900), 8)
    assert len(said) == 8
    assert 0 < server.leases()["a"] < 47
    assert server.metric("num_preemptions_total") == before


def test_what_is_demoted_gives_way_first(server: Server) -> None:
    server.lease("early", 704, lease_s=30)
    server.lease("late", 704, lease_s=60)
    server.act({"session": "late", "verb": "demote"})
    server.complete(prompt(1900), 8)
    leases = server.leases()
    assert leases["early"] == 22
    assert leases["late"] < 22


def test_running_requests_that_grow_get_room_from_leases_instead_of_being_preempted(server: Server) -> None:
    server.lease("a", 1504)
    before = server.metric("num_preemptions_total")
    assert server.together(6, prompted=192, tokens=256) == [256] * 6
    assert server.metric("num_preemptions_total") == before
    assert 6 * (192 + 256) // 32 + sum(server.leases().values()) <= ROOM


def test_where_leases_are_not_enough_requests_are_preempted_and_all_end(server: Server) -> None:
    server.lease("a", 1504)
    before = server.metric("num_preemptions_total")
    assert server.together(8, prompted=192, tokens=320) == [320] * 8
    assert server.metric("num_preemptions_total") > before
    assert server.leases() == {}


def test_everything_is_given_back_in_the_end(server: Server) -> None:
    server.lease("a", 320)
    server.clear()
    server.complete(prompt(32))
    pool = server.table()["pool"]
    assert (pool["held"], pool["returning"], pool["free"]) == (0, 0, ROOM)


# -- the turn


async def test_an_answer_given_up_is_given_up_at_the_server(server: Server, engine: VllmEngine) -> None:
    tokens = prompt(64)
    job = Job(TurnId("t"), tokens, len(tokens), Sampling(max_tokens=1900))
    async with aclosing(engine.say(job)) as answer:  # type: ignore[type-var]
        async for _ in answer:
            break
    await asyncio.to_thread(server.until, server.running, 0)


def test_a_call_at_the_server_obeys_our_schema_and_its_context_is_held(server: Server) -> None:
    numbers: Any = {name: {"type": "integer", "minimum": 0, "maximum": 9} for name in "ab"}
    tool = Tool("add", "Adds.", {"type": "object", "properties": numbers, "required": ["a", "b"]})
    question = (Message("user", "What is 3 and 4?"),)
    ask = Ask(
        question, (tool,), choice=Choice("any"), parallel=False, program="agent", sampling=Sampling(max_tokens=99)
    )
    with Host(VllmEngine.connect(server.url)) as host:
        answer = host.ask(ask).wait()
        (call,) = answer.calls
        assert validators([tool])["add"].problems(call.arguments) == ()
        server.until(server.sessions, [lease_key("agent", "main")])
        again = Message("assistant", answer.text, calls=answer.calls, tokens=answer.tokens)
        back = Ask((*question, again, Message("tool", "7", tool="add", call=call.id)), (tool,), program="agent")
        after = host.ask(back).wait()
        assert after.facts.reused_tokens >= (answer.facts.prompt_tokens + len(answer.tokens)) // 32 * 32 - 32
        host.finish("agent")
    server.until(server.sessions, [])
