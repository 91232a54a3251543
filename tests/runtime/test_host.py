"""Through the host: conversations that go on, and constrained answers that survive a preemption."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sostenuto.runtime.ask import Ask, Message
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.errors import HostClosed
from sostenuto.runtime.host import Host
from sostenuto.runtime.sampling import Sampling
from sostenuto.scheduler import Policy, Preempt, Waiting, World

from .conftest import Gated, Pair

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 30}, "count": {"type": "integer"}},
    "required": ["name", "count"],
    "additionalProperties": False,
}


@pytest.fixture
def host(packaged: Pair) -> Iterator[Host]:
    with Host(TorchEngine(packaged.ours, pool_tokens=2048)) as opened:
        yield opened


def test_the_next_question_of_a_conversation_reuses_all_that_was_computed(host: Host, packaged: Pair) -> None:
    first = Message("user", "Say a short greeting.")
    greedy = Sampling(max_tokens=12)
    answer = host.ask(Ask((first,), sampling=greedy, program="p")).wait()
    said = Message("assistant", answer.text, tokens=answer.tokens)
    messages = (first, said, Message("user", "And now a farewell."))
    prompt = host.render.tokens(messages)
    after = host.ask(Ask(messages, sampling=greedy, program="p")).wait()
    kept = answer.facts.prompt_tokens + len(answer.tokens) - 1
    assert after.facts.reused_tokens >= kept
    packaged.agrees(prompt, after.tokens, len(prompt))


async def test_a_coroutine_gets_the_answer_that_a_thread_gets(host: Host) -> None:
    ask = Ask((Message("user", "Count to three."),), sampling=Sampling(max_tokens=8))
    assert (await host.ask(ask).arrive()).tokens == host.ask(ask).wait().tokens


@pytest.mark.every_way
def test_a_constrained_answer_that_was_preempted_equals_an_undisturbed_one(tiny: Pair) -> None:
    asks = [
        Ask(
            (Message("user", f"number {number}"),),
            schema=SCHEMA,
            sampling=Sampling(temperature=1.0, seed=number, max_tokens=50),
            program=f"p{number}",
        )
        for number in range(2)
    ]
    with Host(TorchEngine(tiny.ours, pool_tokens=2048)) as host:
        alone = [host.ask(ask).wait() for ask in asks]
    gate = Gated(tiny.ours, pool_tokens=96)
    with Host(gate, policy="forgetful") as host:
        effects: list[object] = []
        host.loop.watch(effects.append)
        answering = [host.ask(ask) for ask in asks]
        gate.open()
        together = [one.wait() for one in answering]
    assert any(isinstance(effect, Preempt) for effect in effects)
    assert [answer.tokens for answer in together] == [answer.tokens for answer in alone]
    assert [answer.text for answer in together] == [answer.text for answer in alone]


def test_a_policy_of_ones_own_that_raises_ends_turns_with_its_name_and_the_question(
    tiny: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(world: World, turn: Waiting) -> tuple[float, ...]:
        raise ZeroDivisionError("by nothing")

    with Host(TorchEngine(tiny.ours, pool_tokens=256), policy=Policy("mine", order=broken)) as host:
        answer = host.ask(Ask((Message("user", "hello"),), sampling=Sampling(max_tokens=2)))
        with pytest.raises(HostClosed, match="policy 'mine': order raised ZeroDivisionError: by nothing"):
            answer.wait()
        with pytest.raises(HostClosed, match=r"this host is closed \(policy 'mine': order raised"):
            host.ask(Ask((Message("user", "again"),)))
    assert "BadPolicy" in caplog.text
