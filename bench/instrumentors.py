"""Who is measured: ways to have spans of LangGraph runs, each switched on as its own documentation says.

What a peer records of the content of messages is switched off where it has a switch, as ours records none.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from sostenuto.tracing import instrument


@dataclass(frozen=True, slots=True)
class On:
    """An instrumentor that is switched on."""

    callbacks: Sequence[Any] = ()
    """What each call's configuration must be given; nothing for those that patch."""
    flush: Callable[[], object] = lambda: None
    """Waits until the spans it makes behind the program's back are made."""


@dataclass(frozen=True, slots=True)
class Instrumentor:
    """One way to have spans."""

    name: str
    switch_on: Callable[[TracerProvider], On]
    """Called once in a process, after the provider has become the global one."""
    package: str | None = None
    """The distribution whose version is told."""
    environment: str = "one"
    """The virtual environment under `.venv-peers` that has it."""
    nodes: bool = True
    """Whether it means to open a span per node."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """The environment variables it is configured by."""
    exporting: bool = True
    """False: no provider is configured at all."""
    modules: Sequence[str] = ()
    """What it imports when it is switched on."""


class Nowhere(SpanExporter):
    """Takes spans and does nothing with them."""

    def export(self, spans: Sequence[object]) -> SpanExportResult:
        """Success."""
        return SpanExportResult.SUCCESS


def _ours(provider: TracerProvider) -> On:
    instrument(provider)
    return On()


def _ours_plain(provider: TracerProvider) -> On:
    instrument(provider, supersteps=False)
    return On()


def _ours_silent(provider: TracerProvider) -> On:
    instrument()
    return On()


def _openinference(provider: TracerProvider) -> On:
    config = import_module("openinference.instrumentation").TraceConfig(hide_inputs=True, hide_outputs=True)
    made = import_module("openinference.instrumentation.langchain").LangChainInstrumentor()
    made.instrument(tracer_provider=provider, config=config)
    return On()


def _openllmetry(provider: TracerProvider) -> On:
    import_module("opentelemetry.instrumentation.langchain").LangchainInstrumentor().instrument(
        tracer_provider=provider
    )
    return On()


def _genai(provider: TracerProvider) -> On:
    import_module("opentelemetry.instrumentation.genai.langchain").LangChainInstrumentor().instrument(
        tracer_provider=provider
    )
    return On()


def _langfuse(provider: TracerProvider) -> On:
    client = import_module("langfuse").Langfuse(
        public_key="none",
        secret_key="none",  # there is no server: its spans go nowhere
        base_url="http://127.0.0.1:9",
        tracer_provider=provider,
        span_exporter=Nowhere(),
        mask=lambda **_: None,
    )
    return On(callbacks=(import_module("langfuse.langchain").CallbackHandler(),), flush=client.flush)


def _langsmith(provider: TracerProvider) -> On:
    import_module("langsmith.utils").get_env_var.cache_clear()  # it may have looked before it was configured
    # Without a time limit it now and then waits for ever for runs that its threads have lost count of.
    client = import_module("langchain_core.tracers.langchain").get_client()
    return On(flush=lambda: client.flush(timeout=5))


def _openlit(provider: TracerProvider) -> On:
    # By default it fetches prices from the network and instruments every library that it finds.
    others = set(import_module("openlit._instrumentors").MODULE_NAME_MAP) - {"langchain", "langgraph"}
    with tempfile.TemporaryDirectory() as folder:
        prices = Path(folder, "prices.json")
        prices.write_text("{}", encoding="utf-8")
        import_module("openlit").init(
            pricing_json=str(prices),
            capture_message_content=False,
            disabled_instrumentors=sorted(others),
            disable_metrics=True,
            disable_events=True,
        )
    return On()


def _loongsuite(provider: TracerProvider) -> On:
    import_module("opentelemetry.instrumentation.langgraph").LangGraphInstrumentor().instrument()
    import_module("opentelemetry.instrumentation.langchain").LangChainInstrumentor().instrument(
        tracer_provider=provider
    )
    return On()


def _splunk(provider: TracerProvider) -> On:
    import_module("opentelemetry.instrumentation.langchain").LangChainInstrumentor().instrument(
        tracer_provider=provider
    )
    return On()


def use(instrumentor: Instrumentor, provider: TracerProvider) -> On:
    """Switches it on for this process. There is no way back: most of them patch for good."""
    if instrumentor.exporting:
        trace.set_tracer_provider(provider)
    return instrumentor.switch_on(provider)


NONE = Instrumentor("none", lambda _: On())
OURS = Instrumentor("sostenuto", _ours, "sostenuto")
PLAIN = Instrumentor("sostenuto, no supersteps", _ours_plain, "sostenuto")
SILENT = Instrumentor("sostenuto, no provider", _ours_silent, "sostenuto", exporting=False)
OPENINFERENCE = Instrumentor(
    "OpenInference",
    _openinference,
    "openinference-instrumentation-langchain",
    modules=("openinference.instrumentation.langchain",),
)
OPENLLMETRY = Instrumentor(
    "OpenLLMetry",
    _openllmetry,
    "opentelemetry-instrumentation-langchain",
    variables={"TRACELOOP_TRACE_CONTENT": "false"},
    modules=("opentelemetry.instrumentation.langchain",),
)
GENAI = Instrumentor(
    "OpenTelemetry GenAI",
    _genai,
    "opentelemetry-instrumentation-genai-langchain",
    nodes=False,
    variables={"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "NO_CONTENT"},
    modules=("opentelemetry.instrumentation.genai.langchain",),
)
LANGFUSE = Instrumentor("Langfuse", _langfuse, "langfuse", modules=("langfuse", "langfuse.langchain"))
LANGSMITH = Instrumentor(
    "LangSmith, OTel mode",
    _langsmith,
    "langsmith",
    variables={
        "LANGSMITH_TRACING": "true",
        "LANGSMITH_TRACING_MODE": "otel",
        "LANGSMITH_HIDE_INPUTS": "true",
        "LANGSMITH_HIDE_OUTPUTS": "true",
    },
)
LOONGSUITE = Instrumentor(
    "LoongSuite",
    _loongsuite,
    "loongsuite-instrumentation-langchain",
    environment="two",
    variables={"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "NO_CONTENT"},
    modules=("opentelemetry.instrumentation.langchain", "opentelemetry.instrumentation.langgraph"),
)
OPENLIT = Instrumentor("OpenLIT", _openlit, "openlit", environment="two", modules=("openlit",))
SPLUNK = Instrumentor(
    "Splunk",
    _splunk,
    "splunk-otel-instrumentation-langchain",
    environment="three",
    variables={"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "false"},
    modules=("opentelemetry.instrumentation.langchain",),
)
PEERS = (OPENINFERENCE, OPENLLMETRY, GENAI, LANGFUSE, LANGSMITH, LOONGSUITE, OPENLIT, SPLUNK)
