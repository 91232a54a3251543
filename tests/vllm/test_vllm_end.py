"""A vLLM that wants a key, and that dies in the middle of a turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sostenuto.runtime.ask import Ask, Message
from sostenuto.runtime.engines import Job
from sostenuto.runtime.engines.vllm.engine import VllmEngine
from sostenuto.runtime.errors import EngineFailed
from sostenuto.runtime.host import Host
from sostenuto.runtime.sampling import Sampling
from sostenuto.scheduler import TurnId

from .conftest import Server, prompt, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KEY = "a-key-of-ours"


@pytest.fixture(scope="module")
def guarded(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own: it will not outlive these tests."""
    with serving(tiny, tmp_path_factory.mktemp("guarded") / "log", "--api-key", KEY) as server:
        yield server


def test_leases_are_not_for_those_without_the_key(guarded: Server) -> None:
    assert guarded.client.get("/sostenuto/leases").status_code == 401
    assert guarded.client.post("/sostenuto/leases", json=[]).status_code == 401
    wrong = {"authorization": "Bearer another"}
    assert guarded.client.get("/sostenuto/leases", headers=wrong).status_code == 401
    with pytest.raises(EngineFailed, match="does not list its models"):
        VllmEngine.connect(guarded.url)


def test_with_the_key_everything_is_there(guarded: Server) -> None:
    with Host(VllmEngine.connect(guarded.url, api_key=KEY)) as host:
        assert host.can.hold
        assert host.ask(Ask((Message("user", "hello"),), sampling=Sampling(max_tokens=4))).wait().facts.said_tokens == 4


async def test_a_server_that_dies_in_a_turn_fails_the_turn_and_says_so(guarded: Server) -> None:
    engine = VllmEngine.connect(guarded.url, api_key=KEY)
    tokens = prompt(64)
    job = Job(TurnId("t"), tokens, len(tokens), Sampling(max_tokens=1900), key="a")
    said = engine.say(job)
    await anext(said)
    guarded.kill()
    with pytest.raises(EngineFailed, match=r"broke (off|the answer off)|without an end"):
        async for _ in said:
            pass
    with pytest.raises(EngineFailed, match="broke off after 0 tokens"):
        await anext(engine.say(job))
    with pytest.raises(EngineFailed, match="does not change leases"):
        await engine.hold("a", 60)
    await engine.aclose()


def test_where_the_server_is_gone_nothing_can_be_connected(guarded: Server) -> None:
    with pytest.raises(EngineFailed, match="nobody answers at"):
        VllmEngine.connect(guarded.url, api_key=KEY)
