"""A server's page for Prometheus."""

from __future__ import annotations

import gc
from typing import Any

import pytest

pytest.importorskip("opentelemetry.exporter.prometheus", reason="the server's extra is not installed")

from prometheus_client.parser import text_string_to_metric_families

from sostenuto.tracing import ToolCall, TurnNumbers, instrument, meters, record_turn, tool_span
from sostenuto.tracing.page import Page

NUMBERS = TurnNumbers("tiny", "sostenuto", 2.5, queued=0.25, hit=64, computed=30, recomputed=6)


def test_a_page_shows_what_the_process_counts_and_what_its_server_does(spans: Any) -> None:
    page, other = Page(), Page()
    undo = instrument(spans.provider)
    try:
        record_turn(NUMBERS)
        with tool_span(ToolCall("add")):
            pass
        page.record("http.server.request.duration", 0.2, {"http.route": "/v1/models"})
        page.add("sostenuto.turns.in_flight", 3, {})
    finally:
        undo()
    found, beside = _read(page), _read(other)
    for each in (found, beside):
        assert each["gen_ai_server_request_duration_seconds_sum"] == 2.5
        assert each["sostenuto_kv_tokens_total"] == 100
        assert each["gen_ai_execute_tool_duration_seconds_count"] == 1
        assert each["sostenuto_queue_duration_seconds_bucket"] > 0
    assert found["http_server_request_duration_seconds_count"] == 1
    assert found["sostenuto_turns_in_flight"] == 3
    assert not [name for name in beside if "http" in name or "in_flight" in name]


def test_what_a_server_does_goes_where_the_processs_numbers_go_too(spans: Any) -> None:
    page, elsewhere = Page(), Page()
    undo = instrument(spans.provider, meter_provider=elsewhere._provider)
    try:
        page.add("sostenuto.turns.in_flight", 3, {})
    finally:
        undo()
    assert _read(page)["sostenuto_turns_in_flight"] == _read(elsewhere)["sostenuto_turns_in_flight"] == 3


def test_a_page_that_nobody_keeps_counts_no_more() -> None:
    gc.collect()
    before = len(meters.meters())
    page = Page()
    assert len(meters.meters()) == before + 1
    del page
    gc.collect()
    assert len(meters.meters()) == before


def _read(page: Page) -> dict[str, float]:
    """The page's samples by name, added up over their labels."""
    text = page.read("text/plain")[0].decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            found[each.name] = found.get(each.name, 0) + each.value
    return found
