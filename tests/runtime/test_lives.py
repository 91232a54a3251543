"""A context's life in a trace: waited, computed, said; held, let go, taken up again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sostenuto.runtime.ask import Message
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.errors import EngineFailed
from sostenuto.runtime.host import Host
from sostenuto.runtime.sampling import Sampling
from sostenuto.runtime.session import Session
from sostenuto.runtime.ticket import Ended
from sostenuto.scheduler import Closed, Forking, ProgramId, Travelled
from sostenuto.tracing import ModelCall as Asked
from sostenuto.tracing import Options, Record, model_span, names, records_of, use

from .conftest import Gated, Pair, Stage, Told, draw, read

Stages = Callable[..., Stage]


class Trace:
    """What was recorded so far."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def named(self, *wanted: str) -> list[Record]:
        """In the order in which they began."""
        found = records_of(self.exporter.get_finished_spans())
        return sorted((one for one in found if one.name in wanted), key=lambda one: (one.start, one.end))

    def one(self, name: str) -> Record:
        (found,) = self.named(name)
        return found

    def under(self, parent: str) -> list[str]:
        """The names of all that stands under a span, in the order in which it began."""
        every = records_of(self.exporter.get_finished_spans())
        found = [one for one in every if one.parent_id == parent]
        return [one.name for one in sorted(found, key=lambda one: (one.start, one.end))]


@pytest.fixture
def trace() -> Iterator[Trace]:
    kept = Trace()
    use(Options(kept.provider))
    yield kept
    use(None)


def call(stage: Stage, tokens: list[int], *tools: str, **rest: Any) -> tuple[str, Told]:
    """A model call that ends by calling these tools; the id of its span, and what came of it."""
    with model_span(Asked("tiny")) as span:
        told = read(stage.submit(tokens, place=span.context, tools_called=lambda text, reason: tools, **rest))
    return f"{span.context.span_id:016x}", told


def test_a_call_waits_computes_and_speaks_in_this_order_and_without_gaps(
    tiny: Pair, stages: Stages, trace: Trace
) -> None:
    span, _ = call(stages(tiny.ours), draw(30), max_tokens=6)
    assert trace.under(span) == ["queue", "prefill", "decode"]
    queue, prefill, decode = trace.named("queue", "prefill", "decode")
    model = trace.one("chat tiny")
    assert model.start <= queue.start <= queue.end == prefill.start <= prefill.end == decode.start <= decode.end
    assert decode.end <= model.end
    assert prefill.attributes[names.PREFILL_TOKENS] == 30
    assert prefill.attributes[names.KV_WHY] == "computed from the start"
    assert decode.attributes[names.DECODE_TOKENS] == 6


def test_a_hold_outlives_its_call_and_the_turn_that_takes_it_up_leads_back_to_it(
    tiny: Pair, stages: Stages, trace: Trace
) -> None:
    stage = stages(tiny.ours)
    first, told = call(stage, draw(30), "search", max_tokens=6)
    assert trace.named("kv.hold") == []
    longer = [*draw(30), *told.tokens, *draw(10, seed=9)]
    second, again = call(stage, longer)
    hold, restore = trace.one("kv.hold"), trace.one("kv.restore")
    assert (hold.parent_id, restore.parent_id) == (first, second)
    assert [(link.span_id, link.attributes[names.LINK]) for link in restore.links] == [(hold.span_id, "hold")]
    assert hold.attributes[names.KV_WHY] == "extended by the next turn"
    assert hold.attributes[names.HOLD_TOOLS] == ("search",)
    assert hold.attributes[names.KV_TOKENS] == 35 == restore.attributes[names.KV_HIT_TOKENS]
    assert restore.attributes[names.KV_RECOMPUTED_TOKENS] == 0 == again.end.facts.lost_tokens
    assert [event.name for event in hold.events] == []
    model = trace.named("chat tiny")[0]
    assert hold.end > model.end


def test_what_gave_way_says_so_and_what_it_cost_is_told_where_it_is_paid(
    tiny: Pair, stages: Stages, trace: Trace
) -> None:
    stage = stages(tiny.ours, pool=96)
    _, told = call(stage, draw(40), "search", program="a", max_tokens=4)
    stage.loop.tell(Closed(ProgramId("a"), "failed"))
    call(stage, draw(80, seed=5), program="b", max_tokens=4)
    hold = trace.one("kv.hold")
    assert hold.attributes[names.KV_WHY] == "its program failed"
    assert hold.events == (), "nobody will come back for it: it is no demotion"
    evicted = [event for one in trace.named("prefill", "decode") for event in one.events if event.name == "kv.evict"]
    assert sum(event.attributes[names.KV_BLOCKS] for event in evicted) > 0
    assert {event.attributes[names.KV_WHY] for event in evicted} == {"room for b"}
    _, again = call(stage, [*draw(40), *told.tokens, 7], program="a")
    facts = again.end.facts
    assert facts.lost_tokens == 43 - facts.reused_tokens > 0
    assert facts.lost_why == "its program failed"
    restore = trace.one("kv.restore")
    assert restore.attributes[names.KV_RECOMPUTED_TOKENS] == facts.lost_tokens
    assert [link.span_id for link in restore.links] == [hold.span_id]


def test_a_hold_that_gives_way_in_the_moment_in_which_it_begins_is_told_all_the_same(
    tiny: Pair, stages: Stages, trace: Trace
) -> None:
    gate = Gated(tiny.ours, pool_tokens=96)
    stage = stages(gate, policy="fixed-ttl")
    gate.let(2)
    _, told = call(stage, draw(8), "search", program="older", max_tokens=2)
    with model_span(Asked("tiny")) as span:
        ticket = stage.submit(draw(40, seed=5), "b", place=span.context, tools_called=lambda *_: ("x",), max_tokens=2)
        for _ in range(3):
            gate.wait()  # two steps of the older one, and this one's first
        again = stage.submit([*draw(8), *told.tokens, *draw(50, seed=6)], "older", place=span.context)
        gate.open()
        read(ticket)
        read(again)
    hold = next(one for one in trace.named("kv.hold") if one.attributes[names.PROGRAM] == "b")
    assert hold.attributes[names.KV_WHY] == "room for older"
    (demoted,) = hold.events
    assert (demoted.name, demoted.attributes[names.KV_WHY]) == ("kv.demote", "room for older")
    assert hold.start <= hold.end


def test_a_context_that_nobody_held_and_that_is_gone_is_counted_as_computed_twice(tiny: Pair, stages: Stages) -> None:
    stage = stages(tiny.ours, pool=96)
    told = stage.say(draw(40), "a", max_tokens=4)
    stage.say(draw(80, seed=5), "b", max_tokens=4)
    facts = stage.say([*draw(40), *told.tokens, 7], "a").end.facts
    assert (facts.lost_tokens, facts.lost_why) == (43 - facts.reused_tokens, "nobody held it")
    assert facts.lost_tokens > 0
    other = stage.say(draw(60, seed=8), "a").end.facts
    assert (other.lost_tokens, other.lost_why) == (0, "")


def test_branches_of_one_pause_are_forks_and_a_program_set_back_is_a_rollback(
    tiny: Pair, stages: Stages, trace: Trace
) -> None:
    stage = stages(tiny.ours)
    _, told = call(stage, draw(30), "search", max_tokens=6)
    stage.loop.tell(Forking(ProgramId("p"), 2))
    base = [*draw(30), *told.tokens]
    ids = [call(stage, [*base, n], branch=f"side {n}")[0] for n in (1, 2)]
    hold = trace.one("kv.hold")
    fork, last = trace.named("kv.fork", "kv.restore")
    assert (fork.name, last.name) == ("kv.fork", "kv.restore")
    assert [fork.parent_id, last.parent_id] == ids
    assert [link.span_id for one in (fork, last) for link in one.links] == [hold.span_id] * 2
    stage.loop.tell(Travelled(ProgramId("p"), "an older one"))
    back, _ = call(stage, base[:25])
    rollback = trace.one("kv.rollback")
    assert rollback.parent_id == back
    assert rollback.attributes[names.KV_HIT_TOKENS] == 24


def test_a_turn_taken_out_waits_and_computes_again_in_passages_of_their_own(
    tiny: Pair, stages: Stages, trace: Trace
) -> None:
    gate = Gated(tiny.ours, pool_tokens=80)
    stage = stages(gate, policy="forgetful")
    tickets, spans = [], []
    for n in range(2):
        with model_span(Asked("tiny")) as span:
            tickets.append(stage.submit(draw(20, seed=3 + n), f"p{n}", place=span.context, max_tokens=40))
            spans.append(f"{span.context.span_id:016x}")
    gate.open()
    facts = [read(ticket).end.facts for ticket in tickets]
    assert max(fact.recomputed_tokens for fact in facts) > 0
    for each, fact in zip(spans, facts, strict=True):
        taken_out = trace.under(each).count("queue") - 1
        assert trace.under(each) == ["queue", "prefill", "decode"] * (1 + taken_out)
        assert (taken_out > 0) == (fact.recomputed_tokens > 0)
    preempted = [event for one in trace.named("decode") for event in one.events if event.name == "preempt"]
    assert len(preempted) == sum(trace.under(each).count("queue") - 1 for each in spans)
    rows = sum(one.attributes[names.PREFILL_TOKENS] for one in trace.named("prefill"))
    # The last token that was said before goes in with the rest: it would have been computed anyway.
    assert rows == sum(fact.computed_tokens + fact.recomputed_tokens for fact in facts) + len(preempted)


def test_a_turn_that_fails_or_is_given_up_still_tells_how_far_it_came(tiny: Pair, stages: Stages, trace: Trace) -> None:
    gate = Gated(tiny.ours)
    stage = stages(gate)
    gate.fault = OSError("the device is gone")
    with model_span(Asked("tiny")) as span:
        ticket = stage.submit(draw(20), place=span.context)
    gate.let()
    with pytest.raises(EngineFailed, match="the device is gone"):
        read(ticket)
    assert trace.under(f"{span.context.span_id:016x}") == ["queue", "prefill"]


def test_turns_and_holds_are_counted_those_that_came_to_no_end_too(tiny: Pair, stages: Stages) -> None:
    reader = InMemoryMetricReader()
    use(Options(meter_provider=MeterProvider([reader])))
    try:
        gate = Gated(tiny.ours)
        stage = stages(gate)
        gate.let(8)
        told = stage.say(draw(20), tools_called=lambda *_: ("search",), max_tokens=8)
        assert numbers(reader)["sostenuto.kv.held_blocks"] == {"": 4}
        left = stage.submit([*draw(20), *told.tokens, *draw(9, seed=8)])
        gate.wait()
        left.cancel()
        gate.open()
        stage.loop.ask()
        found = numbers(reader)
    finally:
        use(None)
    assert found["sostenuto.kv.tokens"] == {"hit": 27, "computed": 20, "recomputed": 0}
    assert found["sostenuto.kv.held_blocks"] == {"": 0}
    assert found["sostenuto.kv.holds"] == {"resumed": 1}
    assert found["sostenuto.turn.tokens"] == {"input": 20, "output": 8}
    assert found["gen_ai.server.request.duration"] == {"": 2}, "both, and none of them has failed"
    assert found["gen_ai.server.time_to_first_token"] == {"": 1}


def numbers(reader: InMemoryMetricReader) -> dict[str, dict[str, float]]:
    """Of each metric, its sums, or its counts where it is a histogram, by the one attribute that tells them apart."""
    apart = ("sostenuto.kv.kind", "sostenuto.hold.end", "gen_ai.token.type", "error.type")
    data: Any = reader.get_metrics_data()
    found: dict[str, dict[str, float]] = {}
    for metric in (one for each in data.resource_metrics for scope in each.scope_metrics for one in scope.metrics):
        for point in metric.data.data_points:
            kind = next((str(point.attributes[name]) for name in apart if name in point.attributes), "")
            value = point.value if hasattr(point, "value") else point.count
            found.setdefault(metric.name, {})[kind] = value
    return found


def test_nothing_is_told_without_a_call_above_or_without_a_provider(tiny: Pair, stages: Stages, trace: Trace) -> None:
    stage = stages(tiny.ours)
    stage.say(draw(20), tools_called=lambda text, reason: ("search",))
    assert trace.exporter.get_finished_spans() == ()
    use(None)
    call(stage, draw(20))
    assert trace.exporter.get_finished_spans() == ()


def test_a_host_that_closes_ends_the_spans_of_its_holds(tiny: Pair, trace: Trace) -> None:
    with Host(TorchEngine(tiny.ours, pool_tokens=512)) as host:
        call(Stage(host.loop), draw(20), "search")
        assert trace.named("kv.hold") == []
    assert trace.one("kv.hold").attributes[names.KV_WHY] == "the host was closed"


def test_a_session_tells_of_its_calls_marks_forks_and_rollbacks(tiny: Pair, trace: Trace) -> None:
    caller = trace.provider.get_tracer("a user")
    with (
        Host(TorchEngine(tiny.ours, pool_tokens=2048)) as host,
        Session(host, sampling=Sampling(temperature=1.0, seed=5, max_tokens=12)) as session,
    ):
        session.feed(draw(20))
        session.mark("alone")  # nobody stands above it: nothing is told
        with caller.start_as_current_span("user"):
            session.mark("here")
            session.generate()
            session.rollback("here")
            session.fork(3)
    user = trace.one("user")
    assert trace.under(user.span_id) == ["kv.snapshot", f"chat {host.engine.name}", "kv.rollback", "kv.fork"]
    assert trace.one("kv.snapshot").attributes[names.KV_KEY] == "here"
    assert trace.one("kv.rollback").attributes[names.KV_TOKENS] == 20
    assert trace.one("kv.fork").attributes[names.KV_BRANCHES] == 3
    model = trace.one(f"chat {host.engine.name}")
    assert trace.under(model.span_id) == ["queue", "prefill", "decode"]
    assert model.attributes[names.OUTPUT_TOKENS] == 12


def test_what_a_grammar_costs_to_build_stands_under_the_call(packaged: Pair, trace: Trace) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    sampling = Sampling(max_tokens=24)
    with (
        Host(TorchEngine(packaged.ours, pool_tokens=512)) as host,
        Session(host, schema=schema, sampling=sampling) as one,
    ):
        one.read([Message("user", "A number?")])
        one.generate()
    model = trace.one(f"chat {host.engine.name}")
    assert trace.under(model.span_id) == ["constrain", "queue", "prefill", "decode"]
    assert trace.one("constrain").attributes[names.GRAMMAR] == "schema"
    assert trace.one("decode").attributes[names.FORCED_TOKENS] > 0


def test_an_ended_turn_tells_its_facts_last(tiny: Pair, stages: Stages, trace: Trace) -> None:
    """Whoever has the answer finds the trace complete."""
    stage = stages(tiny.ours)
    with model_span(Asked("tiny")) as span:
        for chunk in stage.submit(draw(20), place=span.context):
            if isinstance(chunk, Ended):
                assert trace.under(f"{span.context.span_id:016x}") == ["queue", "prefill", "decode"]
