"""The demo's trace in a real Arize Phoenix, sent over both protocols and asked back by its REST API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from sostenuto.tracing import names, read_otlp_json

from .phoenix import GRPC, HTTP, Phoenix, phoenix, run_demo, why_not

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]
KINDS = {"invoke_agent": "AGENT", "chat": "LLM", "execute_tool": "TOOL"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phoenix]:
    with phoenix(tmp_path_factory.mktemp("phoenix")) as running:
        yield running


@pytest.mark.parametrize(("project", "to"), [("over-http", HTTP), ("over-grpc", GRPC)])
def test_phoenix_has_the_whole_trace_of_the_demo(project: str, to: str, server: Phoenix, tmp_path: Path) -> None:
    run_demo(project, to, tmp_path / "t.jsonl")
    sent = read_otlp_json(tmp_path / "t.jsonl")
    found = server.awaited(project, len(sent))
    assert len(found) == len(sent)
    ids = {(each["context"]["trace_id"], each["context"]["span_id"]): each for each in found}
    for span in sent:
        there = ids[span.trace_id, span.span_id]
        assert there["name"] == span.name
        assert there["parent_id"] == span.parent_id
        assert there["span_kind"] == KINDS.get(span.name.split()[0], "CHAIN")
        assert (there["status_code"] == "ERROR") is (span.status == "error")
        assert sorted(each["name"] for each in there["events"]) == sorted(each.name for each in span.events)
        ours = {key: value for key, value in span.attributes.items() if key.startswith("sostenuto.")}
        assert {key: there["attributes"][key] for key in ours} == {
            key: list(value) if isinstance(value, tuple) else value for key, value in ours.items()
        }
    counted = Counter(span.name.split()[0] for span in sent)
    assert counted["invoke_agent"] == 2
    assert counted["chat"] == counted["prefill"] == counted["decode"] > 2
    assert counted[names.KV_HOLD] >= counted[names.KV_RESTORE] > 0
