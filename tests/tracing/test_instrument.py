"""Putting the hooks in and taking them out."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool
from langgraph.pregel import Pregel, _runner
from opentelemetry import context as otel
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from sostenuto.tracing import (
    BadOption,
    ModelCall,
    Options,
    OtherOptions,
    OtherProvider,
    in_use,
    instrument,
    instrumented,
    model_span,
    use,
)

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


def test_the_same_options_give_the_same_undo_and_others_are_refused(spans: Any) -> None:
    def redact(name: str, value: object) -> object:
        return value

    meters = MeterProvider(shutdown_on_exit=False)
    chosen: Any = {"meter_provider": meters, "supersteps": False, "content": True, "redact": redact, "langfuse": True}
    undo = instrument(spans.provider, **chosen)
    try:
        assert instrument(spans.provider, **chosen) == undo
        with pytest.raises(OtherOptions, match="another content and langfuse: call the undo"):
            instrument(spans.provider, **{**chosen, "content": False, "langfuse": False})
        with pytest.raises(OtherProvider, match="meter_provider"):
            instrument(spans.provider, **{**chosen, "meter_provider": None})
        assert in_use() == Options(spans.provider, **chosen)
    finally:
        undo()
    assert in_use() == Options()
    again = instrument(spans.provider)
    assert again != undo
    again()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"tracer_provider": MeterProvider(shutdown_on_exit=False)}, "TracerProvider of OpenTelemetry, or None"),
        ({"meter_provider": TracerProvider(shutdown_on_exit=False)}, "expected a MeterProvider"),
        ({"content": "yes"}, "content: found 'yes', expected True or False"),
        ({"supersteps": 0}, "supersteps: found 0"),
        ({"redact": "secret"}, "redact: found 'secret', expected a function"),
    ],
)
def test_a_wrong_option_is_named_and_changes_nothing(wrong: Any, told: str) -> None:
    with pytest.raises(BadOption, match=re.escape(told)):
        instrument(**wrong)
    assert not instrumented()


def test_a_program_without_a_graph_chooses_by_use(spans: Any) -> None:
    use(Options(spans.provider, openinference=True))
    try:
        with model_span(ModelCall("m")):
            pass
    finally:
        use(None)
    with model_span(ModelCall("n")):
        pass
    assert spans.tree() == ["chat m"]
    assert spans.one("chat m").attributes["openinference.span.kind"] == "LLM"
