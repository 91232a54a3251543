"""Putting the hooks in and taking them out."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool
from langgraph.pregel import Pregel, _runner
from opentelemetry import context as otel
from opentelemetry.sdk.trace import TracerProvider

from sostenuto.tracing import OtherProvider, instrument, instrumented

PLACES: tuple[tuple[Any, str], ...] = (
    (Pregel, "stream"),
    (Pregel, "astream"),
    (_runner, "run_with_retry"),
    (_runner, "arun_with_retry"),
    (BaseTool, "run"),
    (BaseTool, "arun"),
    (BaseChatModel, "_generate_with_cache"),
    (BaseChatModel, "_agenerate_with_cache"),
    (BaseChatModel, "stream"),
    (BaseChatModel, "astream"),
)


def test_undo_restores_every_place_exactly(spans: Any) -> None:
    before = [vars(owner)[name] for owner, name in PLACES]
    undo = instrument(spans.provider)
    during = [vars(owner)[name] for owner, name in PLACES]
    assert instrumented()
    undo()
    undo()
    assert [vars(owner)[name] for owner, name in PLACES] == before
    assert all(one is not other for one, other in zip(before, during, strict=True))
    assert not instrumented()


def test_instrumenting_twice_changes_nothing_and_doubles_no_span(traced: Any, models: Any) -> None:
    during = [vars(owner)[name] for owner, name in PLACES]
    instrument(traced.provider)
    assert [vars(owner)[name] for owner, name in PLACES] == during
    models["plain"](answers=[AIMessage("hi")]).invoke("x")
    assert traced.tree() == ["chat Scripted"]


def test_another_provider_is_refused_while_one_is_in_use(traced: Any) -> None:
    with pytest.raises(OtherProvider, match="undo"):
        instrument(TracerProvider())


def test_a_wrapper_of_ours_that_somebody_wrapped_falls_silent_at_undo(
    spans: Any, models: Any, monkeypatch: Any
) -> None:
    undo = instrument(spans.provider)
    ours = BaseChatModel._generate_with_cache
    # Somebody wraps ours: their wrapper must stay, and ours under it must fall silent.
    monkeypatch.setattr(BaseChatModel, "_generate_with_cache", lambda *args, **kwargs: ours(*args, **kwargs))
    theirs = vars(BaseChatModel)["_generate_with_cache"]
    undo()
    assert vars(BaseChatModel)["_generate_with_cache"] is theirs
    again = instrument(spans.provider)
    try:
        models["plain"](answers=[AIMessage("hi")]).invoke("x")
        assert spans.tree() == ["chat Scripted"]
    finally:
        again()
        setattr(BaseChatModel, "_generate_with_cache", vars(ours)["__wrapped__"])  # noqa: B010


def test_suppressed_instrumentation_is_respected(agent: Any, traced: Any) -> None:
    token = otel.attach(otel.set_value("suppress_instrumentation", True))
    try:
        agent.invoke({"messages": [("user", "go")]})
    finally:
        otel.detach(token)
    assert [each.name for each in traced.all] == ["in add"] * 3


def test_a_langgraph_without_the_runners_functions_is_still_traced_in_part(
    spans: Any, caplog: Any, monkeypatch: Any
) -> None:
    run = vars(_runner)["run_with_retry"]
    monkeypatch.delattr(_runner, "run_with_retry")
    undo = instrument(spans.provider)
    try:
        assert "run_with_retry" in caplog.text
    finally:
        undo()
    assert not hasattr(_runner, "run_with_retry")
    monkeypatch.undo()
    assert vars(_runner)["run_with_retry"] is run


def test_opening_the_room_imports_neither_langgraph_nor_the_sdk() -> None:
    code = (
        "import sys, sostenuto.tracing as t; t.model_span\n"
        "print([m for m in ('langgraph', 'langchain_core', 'opentelemetry.sdk') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
