"""Tenants and what they weigh, as a user of a host sets them."""

from __future__ import annotations

from itertools import count

import pytest

from sostenuto.runtime.ask import Ask, Message
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.host import Host
from sostenuto.runtime.loop import Loop
from sostenuto.runtime.sampling import Sampling
from sostenuto.scheduler import ProgramId, Setting, TurnId
from sostenuto.scheduler.policies.sostenuto import order
from sostenuto.scheduler.world import Program, Waiting
from sostenuto.tests.runtime.conftest import Gated, Pair


def ask(tenant: str, number: int, program: str = "") -> Ask:
    text = f"{tenant} {number} " + "x" * 60
    return Ask((Message("user", text),), sampling=Sampling(max_tokens=2), tenant=tenant, program=program)


def test_after_as_much_service_a_tenant_with_a_larger_share_is_less_ahead_and_goes_first(
    tiny: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = count(step=10)
    monkeypatch.setattr(Loop, "_now", lambda self: float(next(ticks)))  # ten seconds pass whenever somebody looks
    with Host(TorchEngine(tiny.ours, pool_tokens=128), setting=Setting(shares={"large": 1000.0})) as host:
        for tenant in ("small", "large"):
            host.ask(ask(tenant, 1)).wait()
        host.loop.ask()
        books = host.loop.kernel.books
        assert 0 <= books.lead("large") < 5 < books.lead("small")
        keys = {}
        for tenant in ("small", "large"):
            program = Program(ProgramId(f"{tenant}/next"), books.now, 1)
            keys[tenant] = order(books, Waiting(TurnId("t"), program, books.now, 1, 20, holds=False))
    assert keys["large"] < keys["small"]


@pytest.mark.parametrize("program", ["", "task-7", "other/task-7"])
def test_a_turn_is_its_tenants_whatever_its_program_is_called(tiny: Pair, program: str) -> None:
    gate = Gated(tiny.ours, pool_tokens=512)
    with Host(gate) as host:
        answering = host.ask(ask("a b/c", 1, program))
        gate.wait()
        host.loop.ask()
        (known,) = host.loop.kernel.books.programs.values()
        assert known.tenant == "a b/c"
        gate.open()
        answering.wait()


def test_a_share_that_is_none_is_refused(tiny: Pair) -> None:
    with pytest.raises(ValueError, match="the share of a: found 0"):
        Host(TorchEngine(tiny.ours, pool_tokens=64), setting=Setting(shares={"a": 0.0}))
