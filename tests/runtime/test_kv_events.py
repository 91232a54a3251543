"""Whoever listens knows exactly what can be found, on the device and below it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from sostenuto.kvstore import DEVICE, FeedEvent, Mirror
from sostenuto.kvstore.tiers import HostTier
from sostenuto.runtime.below import Below
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.host import Host
from sostenuto.scheduler import Interrupted, ProgramId

from .conftest import Pair, Stage, draw, read, still


@pytest.fixture
def host(tiny: Pair) -> Iterator[Host]:
    with Host(TorchEngine(tiny.ours, pool_tokens=128), below=[Below(HostTier(), 160)]) as opened:
        yield opened


def live(host: Host, count: int, seed: int) -> None:
    """Programs that wait for a person, in a pool and a tier that hold only some of them."""
    stage = Stage(host.loop)
    for number in range(count):
        program = f"{seed}.{number}"
        read(stage.submit(draw(60, seed=seed + number), program, tools_called=lambda text, reason: ("ask",)))
        host.tell(Interrupted(ProgramId(program)))
        still(host.loop)


def agree(host: Host, mirror: Mirror) -> bool:
    kernel = host.loop.kernel
    assert kernel.ledger.blocks()
    assert kernel.moves.elsewhere.blocks("host")
    return mirror.blocks(DEVICE) == kernel.ledger.blocks() and mirror.blocks("host") == kernel.moves.elsewhere.blocks(
        "host"
    )


def test_who_listens_from_the_start_and_who_comes_later_know_the_same(host: Host) -> None:
    first, second = Mirror(), Mirror()
    host.kv_events.subscribe(first.apply)
    live(host, 4, seed=1)
    assert agree(host, first)
    host.kv_events.subscribe(second.apply)
    assert agree(host, second)
    live(host, 3, seed=20)
    assert agree(host, first)
    assert agree(host, second)


def test_who_has_left_is_told_nothing(host: Host) -> None:
    told: list[FeedEvent] = []
    leave = host.kv_events.subscribe(told.append)
    leave()
    before = len(told)
    live(host, 1, seed=1)
    assert len(told) == before
    host.close()
    leave()


def test_a_listener_that_raises_harms_nobody(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[FeedEvent] = []

    def broken(event: FeedEvent) -> None:
        calls.append(event)
        if len(calls) == 2:
            raise RuntimeError("no room left on the wire")

    mirror = Mirror()
    host.kv_events.subscribe(broken)
    host.kv_events.subscribe(mirror.apply)
    with caplog.at_level(logging.ERROR):
        live(host, 2, seed=1)
    assert len(calls) == 2
    assert "no room left on the wire" in caplog.text
    assert agree(host, mirror)
