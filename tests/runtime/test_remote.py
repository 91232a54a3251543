"""Hosts of one model share what they computed through a Redis on loopback; without it they go on alone."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Set
from pathlib import Path
from typing import Any

import pytest

from sostenuto.kvstore import BlockHash, TierGone
from sostenuto.kvstore.tiers import HostTier, Shared
from sostenuto.runtime.below import Below, Tiers
from sostenuto.runtime.cli import main
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.errors import MissingPackage, Refused
from sostenuto.runtime.host import Host
from sostenuto.runtime.ticket import Ticket
from sostenuto.scheduler import Closed, Effect, Interrupted, ProgramId, Start
from sostenuto.tests.kvstore.redis_server import free_port, server

from .conftest import Pair, Stage, Told, draw, read

redis = pytest.importorskip("redis", reason="the extra `redis` is not installed: pip install redis")

Stages = Callable[..., Stage]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(tmp_path_factory.mktemp("server")) as (url, _):
        yield url


def beside(tiny: Pair, stages: Stages, url: str, **wanted: Any) -> Stage:
    """A loop of its own, with the server below it."""
    engine = TorchEngine(tiny.ours, pool_tokens=256)
    return stages(engine, below=Tiers(remote=url, **wanted).open(engine))


def pause(stage: Stage, tokens: list[int], **rest: Any) -> Told:
    """A turn that calls a tool, which asks a person; what it leaves lies in the tiers when this returns."""
    told = read(stage.submit(tokens, "a", tools_called=lambda text, reason: ("ask",), **rest))
    stage.loop.tell(Interrupted(ProgramId("a")))
    stage.loop.ask()
    for tier in stage.loop.kernel.moves.elsewhere.tiers:
        stage.loop.within(stage.loop.mover.settled(tier)).result()
    return told


def test_a_host_fetches_what_another_computed_after_both_were_opened(tiny: Pair, stages: Stages, address: str) -> None:
    here, there = beside(tiny, stages, address), beside(tiny, stages, address)
    first = pause(here, draw(60))
    tokens = [*draw(60), *first.tokens, *draw(6, seed=7)]
    again = there.say(tokens, "b")
    # Full pages of what the first has computed: 60 tokens and 7 that it said are 8 pages of 8.
    assert (again.end.facts.reused_tokens, again.end.facts.computed_tokens) == (64, 10)
    assert (again.end.facts.tier, again.end.facts.why) == ("remote", "fetched from remote")
    assert again.tokens == stages(tiny.ours, policy="forgetful").say(tokens).tokens
    apart = there.say(tokens, "c", tenant="another")
    assert (apart.end.facts.reused_tokens, apart.end.facts.tier) == (0, "device")
    assert apart.tokens == again.tokens


def test_a_tenant_is_served_by_the_server_what_the_same_tenant_computed(
    tiny: Pair, stages: Stages, address: str
) -> None:
    here, there = beside(tiny, stages, address), beside(tiny, stages, address)
    pause(here, draw(60, seed=1), tenant="one")
    assert there.say(draw(60, seed=1), "b", tenant="two").end.facts.reused_tokens == 0
    assert there.say(draw(60, seed=1), "b", tenant="one").end.facts.reused_tokens == 56


@pytest.mark.parametrize("family", ["gemma3, windows in some layers", "mistral, window of 24"])
def test_a_host_fetches_what_windows_look_at_and_what_layers_that_see_all_have(
    make_either: Callable[..., Pair], stages: Stages, address: str, family: str
) -> None:
    pair = make_either(family)
    here, there = beside(pair, stages, address), beside(pair, stages, address)
    first = pause(here, draw(150, seed=3))
    tokens = [*draw(150, seed=3), *first.tokens, *draw(6, seed=7)]
    again = there.say(tokens, "b")
    assert (again.end.facts.reused_tokens, again.end.facts.computed_tokens) == (152, 12)
    assert (again.end.facts.tier, again.end.facts.why) == ("remote", "fetched from remote")
    assert again.tokens == stages(pair.ours, policy="forgetful").say(tokens).tokens
    assert there.say(tokens, "c", tenant="another").end.facts.reused_tokens == 0


def test_what_a_server_has_lost_is_computed(tiny: Pair, stages: Stages, address: str) -> None:
    stage = beside(tiny, stages, address)
    told = pause(stage, draw(60, seed=2))
    for number in range(4):
        stage.say(draw(200, seed=50 + number), f"rival {number}")
    client = redis.Redis.from_url(address)
    client.flushall()
    client.close()
    tokens = [*draw(60, seed=2), *told.tokens, *draw(6, seed=7)]
    again = stage.say(tokens, "a")
    assert (again.end.facts.reused_tokens, again.end.facts.tier) == (0, "device")
    assert again.tokens == stages(tiny.ours, policy="forgetful").say(tokens).tokens
    assert stage.loop.kernel.moves.elsewhere.count("remote") == 0


def test_host_memory_comes_first_then_the_disk_then_the_server(
    tiny: Pair, stages: Stages, address: str, tmp_path: Path
) -> None:
    stage = beside(tiny, stages, address, host_tokens=64, store=tmp_path)
    assert stage.loop.kernel.moves.elsewhere.tiers == ("host", "disk", "remote")


def test_a_server_that_is_not_there_is_told_in_one_warning_and_done_without(
    tiny: Pair, stages: Stages, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"redis://user:hidden@127.0.0.1:{free_port()}"
    stage = beside(tiny, stages, url)
    (told,) = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert told.startswith("the tier remote failed: the server at 127.0.0.1:")
    assert "will be computed again when it is wanted" in told
    assert pause(stage, draw(60)).tokens == stages(tiny.ours, policy="forgetful").say(draw(60)).tokens
    assert [each.levelname for each in caplog.records].count("WARNING") == 1
    assert "hidden" not in caplog.text


def test_what_is_no_address_is_told_before_a_model_is_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"give one such as redis://127\.0\.0\.1:6379"):
        Host.open("no/such/model", remote="127.0.0.1:6379")
    assert main(["serve", "--model", "no/such/model", "--remote", "127.0.0.1:6379"]) == 1
    assert "no server has this address" in capsys.readouterr().err


def test_without_its_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [each for each in sys.modules if each.split(".")[0] == "redis"]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "sostenuto.kvstore.tiers.remote", raising=False)
    with pytest.raises(MissingPackage, match=r"pip install 'sostenuto\[redis\]'"):
        Host.open("no/such/model", remote="redis://127.0.0.1:6379")


class Others(HostTier):
    """A tier to which others write, and which answers when it is told to."""

    def __init__(self) -> None:
        super().__init__("others")
        self.asked = threading.Semaphore(0)
        self.answers = asyncio.Event()
        self.fault: Exception | None = None
        self.count = 0

    async def have(self, names: Iterable[BlockHash]) -> Set[BlockHash]:
        wanted = frozenset(names)
        if not wanted:
            return wanted
        self.count += 1
        self.asked.release()
        await self.answers.wait()
        if self.fault is not None:
            raise self.fault
        return wanted & self._records.keys()


@pytest.fixture
def others() -> Others:
    tier = Others()
    assert isinstance(tier, Shared)
    return tier


def held_up(stage: Stage, others: Others, more: int = 0) -> Ticket:
    """A turn that waits at the door, of 60 tokens and more."""
    ticket = stage.submit([*draw(60), *draw(more, seed=1)], "a")
    others.asked.acquire()
    return ticket


def answer(stage: Stage, others: Others) -> None:
    """Let it answer; whoever waited for that has come in when this returns."""

    async def tell() -> None:
        others.answers.set()
        for _ in range(10):
            await asyncio.sleep(0)

    stage.loop.within(tell()).result()


@pytest.fixture
def stage(tiny: Pair, stages: Stages, others: Others) -> Stage:
    return stages(tiny.ours, pool=256, below=[Below(others)])


def test_a_turn_that_is_given_up_at_the_door_never_comes_in(stage: Stage, others: Others) -> None:
    effects: list[Effect] = []
    stage.loop.watch(effects.append)
    held_up(stage, others).cancel()
    answer(stage, others)
    assert "0 waiting | 0 running" in stage.loop.ask()
    assert effects == []


def test_a_turn_whose_program_is_closed_while_it_stands_at_the_door_ends(stage: Stage, others: Others) -> None:
    ticket = held_up(stage, others)
    stage.loop.tell(Closed(ProgramId("a"), "finished"))
    with pytest.raises(Refused, match="its program finished"):
        read(ticket)
    answer(stage, others)
    assert "0 waiting | 0 running" in stage.loop.ask()


def test_an_answer_is_broken_off_at_the_door_too(stage: Stage, others: Others) -> None:
    ticket = held_up(stage, others)
    assert stage.loop.abort() == 1
    assert read(ticket).end.reason == "abort"
    answer(stage, others)
    assert "0 waiting | 0 running" in stage.loop.ask()


def test_a_turn_at_the_door_comes_in_under_the_weights_of_then(tiny: Pair, stage: Stage, others: Others) -> None:
    starts: list[Start] = []
    stage.loop.watch(lambda effect: starts.append(effect) if isinstance(effect, Start) else None)
    others.answers.set()
    stage.say(draw(60), "before")
    others.answers.clear()
    ticket = held_up(stage, others, more=20)
    stage.loop.update(lambda version: None, None, kv="salt", running="refuse").result()
    answer(stage, others)
    assert read(ticket).end.facts.reused_tokens == 0
    assert [start.reuse for start in starts] == [0, 0]


def test_a_tier_that_failed_is_not_asked_again_with_every_turn(stage: Stage, others: Others) -> None:
    others.fault = TierGone("the cable was pulled")
    others.answers.set()
    for seed in range(3):
        stage.say(draw(60, seed=seed), f"p{seed}")
    assert others.count == 1


def test_what_is_known_already_is_not_asked_for(stage: Stage, others: Others) -> None:
    others.answers.set()
    told = pause(stage, draw(60))
    assert others.count == 1
    stage.say([*draw(60), *told.tokens[:3]], "b")
    stage.say(draw(8), "c")
    assert others.count == 1
