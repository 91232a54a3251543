"""Spans of work that somebody else did, at times that are known."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry import trace

from sostenuto.tracing import Happened, Options, Place, begin_span, here, off, tell_span, type_name, use, work_span


@pytest.fixture(autouse=True)
def _told(spans: Any) -> Any:
    use(Options(spans.provider))
    yield
    use(None)


def test_a_span_told_afterwards_has_the_times_it_is_given_and_is_never_current(spans: Any) -> None:
    with spans.tracer.start_as_current_span("above") as above:
        place = here()
        assert place is not None
        assert place == above.get_span_context()
        tell_span(
            "prefill", {"n": 3}, under=place, begun=1_000, ended=5_000, events=[Happened("evict", 2_000, {"m": 1})]
        )
        assert trace.get_current_span() is above
    told = spans.one("prefill")
    assert (told.start_time, told.end_time) == (1_000, 5_000)
    assert dict(told.attributes) == {"n": 3}
    assert [(each.name, each.timestamp, dict(each.attributes)) for each in told.events] == [("evict", 2_000, {"m": 1})]
    assert told.parent.span_id == place.span_id


def test_a_span_may_end_long_after_what_it_stands_under_and_be_linked_to(spans: Any) -> None:
    with spans.tracer.start_as_current_span("above") as above:
        place: Place = above.get_span_context()
    hold = begin_span("kv.hold", {}, under=place, begun=1_000)
    assert spans.named("kv.hold") == []
    tell_span("kv.restore", {}, under=place, begun=3_000, ended=3_000, links=[(hold.context, "hold")])
    hold.ended({"why": "resumed"}, at=4_000)
    assert spans.links(spans.one("kv.restore"), "hold") == [spans.one("kv.hold").context.span_id]
    assert dict(spans.one("kv.hold").attributes) == {"why": "resumed"}


def test_work_of_ours_that_nothing_stands_above_is_not_told(spans: Any) -> None:
    assert here() is None
    with work_span("constrain", {}):
        assert here() is None
    assert spans.all == ()
    use(None)
    assert off()


def test_an_error_is_named_with_its_module_unless_it_is_pythons_own() -> None:
    assert type_name(ValueError()) == "ValueError"
    assert type_name(json.JSONDecodeError("x", "", 0)) == "json.decoder.JSONDecodeError"
