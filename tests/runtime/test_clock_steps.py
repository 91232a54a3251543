"""When pages that had another owner may be written on."""

from __future__ import annotations

from collections.abc import Callable

from sostenuto.kvstore import Copy, PageId
from sostenuto.runtime.engines import Job
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.sampling import Sampling
from sostenuto.scheduler import Start, TurnId

from .conftest import Gated, Pair, Stage, draw


def test_pages_are_at_rest_when_the_step_that_writes_on_them_is_over(tiny: Pair, stages: Callable[..., Stage]) -> None:
    gate = Gated(tiny.ours, pool_tokens=256)
    stage = stages(gate)
    ticket = stage.submit(draw(20), max_tokens=2)
    gate.wait()
    ticket.cancel()
    rest = stage.loop.within(stage.loop._clock.at_rest())
    assert "0 running" in stage.loop.ask(), "the turn is gone, and its pages are anybody's"
    assert not rest.done(), "and yet the step writes on them"
    gate.open()
    rest.result()
    assert not gate._copies


def test_a_copy_that_waits_for_a_step_is_made_before_its_pages_change_hands(tiny: Pair) -> None:
    engine = TorchEngine(tiny.ours, pool_tokens=64)
    size = engine.pages.shape.bytes_per_page
    engine.write(0, engine.page, bytes(range(1, 256)) * (size // 255) + bytes(size % 255))
    start = Start(TurnId("t"), 4, (PageId(1),), Copy(PageId(0), PageId(1), 4), "forked")
    engine.start(Job(TurnId("t"), list(range(6)), 6, Sampling()), start)
    before = bytes(engine.read(0, 4))
    assert bytes(engine.read(1, 4)) != before
    engine.drop(TurnId("t"))
    engine.flush()
    assert bytes(engine.read(1, 4)) == before
    engine.write(0, engine.page, bytes(size))
    engine.flush()
    assert bytes(engine.read(1, 4)) == before, "and once only"
