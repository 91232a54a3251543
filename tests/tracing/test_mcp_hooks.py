"""How the hooks for MCP come in and go, whenever a program imports the package."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import SpanKind

from sostenuto.tracing import Options, in_use, instrument, use
from sostenuto.tracing.arrival import Arrival
from sostenuto.tracing.mcp import hooks

from .conftest import Spans
from .mcp_peers import SECOND, connected, new_server

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:mcp")

CALL = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sostenuto.tracing import Options, in_use, instrument, use
kept = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(kept))
trace.set_tracer_provider(provider)

def call():
    from mcp_peers import connected, new_server
    server = new_server()
    async def main():
        async with connected(server) as session:
            kept.clear()
            await session.send_ping()
    asyncio.run(main())
    return sorted((each.name, each.kind.name) for each in kept.get_finished_spans() if "ping" in each.name)
"""


def python(code: str) -> str:
    """What a program of its own prints, whose first lines are `CALL`."""
    program = CALL.format(tests=str(Path(__file__).parent)) + code
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_undo_restores_every_place_exactly(spans: Spans) -> None:
    places = [(owner, name) for owner, name, _ in hooks()]
    assert len(places) == 5
    before = [vars(owner)[name] for owner, name in places]
    undo = instrument(spans.provider)
    during = [vars(owner)[name] for owner, name in places]
    undo()
    assert [vars(owner)[name] for owner, name in places] == before
    assert all(one is not other for one, other in zip(before, during, strict=True))
    assert not any(isinstance(each, Arrival) for each in sys.meta_path)


async def test_instrumenting_twice_doubles_no_span_and_after_undo_there_is_none(spans: Spans) -> None:
    server = new_server()
    undo = instrument(spans.provider)
    instrument(spans.provider)
    async with connected(server) as session:
        spans.exporter.clear()
        await session.send_ping()
        assert [(each.name, each.kind) for each in spans.named("ping")] == [
            ("ping", SpanKind.CLIENT),
            ("ping", SpanKind.SERVER),
        ]
        undo()
        spans.exporter.clear()
        await session.send_ping()
    assert spans.all == ()


async def test_a_wrapper_of_ours_that_somebody_wrapped_falls_silent_at_undo(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, _ = hooks()[0]
    monkeypatch.setattr(owner, name, vars(owner)[name])  # so that it is as before after the test
    undo = instrument(spans.provider)
    ours = vars(owner)[name]

    async def theirs(*args: Any, **kwargs: Any) -> Any:
        return await ours(*args, **kwargs)

    setattr(owner, name, theirs)
    undo()
    assert vars(owner)[name] is theirs
    with trace_to(spans):
        async with connected(new_server()) as session:
            await session.send_ping()
    assert spans.all == ()


OURS = "[('ping', 'CLIENT'), ('ping', 'SERVER')]"
THEIRS = "[('MCP send ping', 'CLIENT'), ('ping', 'SERVER')]" if SECOND else "[]"
"""The spans of the package's own, which ours take the place of."""


@pytest.mark.parametrize("before", ["import mcp; undo = instrument()", "undo = instrument(); import mcp"])
def test_it_does_not_matter_whether_the_package_is_imported_before_or_later(before: str) -> None:
    assert python(f"{before}; print(call()); undo(); print(call())").splitlines() == [OURS, THEIRS]


def test_instrumenting_does_not_import_the_package() -> None:
    code = (
        "before = list(sys.meta_path)\n"
        "undo = instrument(); print('mcp' in sys.modules)\n"
        "undo(); print(sys.meta_path == before); print(call())"
    )
    assert python(code).splitlines() == ["False", "True", THEIRS]


def test_a_package_without_the_places_gives_a_line_in_the_log_and_no_spans(tmp_path: Path) -> None:
    (tmp_path / "mcp.py").write_text("answer = 42\n")
    code = (
        "import logging\n"
        "logging.basicConfig(stream=sys.stdout, format='%(levelname)s %(message)s')\n"
        f"undo = instrument()\nsys.path.insert(0, {str(tmp_path)!r})\n"
        "import mcp\nprint(mcp.answer)\nundo()"
    )
    log, answer = python(code).splitlines()
    assert log.startswith("WARNING requests of MCP get no spans: use mcp ")
    assert answer == "42"


@contextmanager
def trace_to(spans: Spans) -> Iterator[None]:
    """Spans of ours go there, though LangGraph is not instrumented."""
    before = in_use()
    use(Options(tracer_provider=spans.provider))
    try:
        yield
    finally:
        use(before)


class Package:
    """A package that is on the path and not imported yet, and how often its arrival was told."""

    name = "sostenuto_test_package"

    def __init__(self, folder: Path) -> None:
        self.file = folder / f"{self.name}.py"
        self.file.write_text("value = 1\n")
        self.told: list[bool] = []

    def tell(self) -> None:
        self.told.append(hasattr(sys.modules[self.name], "value"))

    def come(self) -> Any:
        importlib.invalidate_caches()
        return importlib.import_module(self.name)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = list(sys.meta_path)
    yield Package(tmp_path)
    sys.modules.pop(Package.name, None)
    assert sys.meta_path == before


def test_an_arrival_is_told_once_after_the_import(package: Package) -> None:
    Arrival(package.name, package.tell)
    assert importlib.util.find_spec(package.name) is not None
    assert package.told == []
    module = package.come()
    assert package.told == [True]
    assert "exec_module" not in vars(module.__loader__)
    importlib.reload(module)
    assert package.told == [True]


def test_what_has_arrived_before_is_told_at_once(package: Package) -> None:
    package.come()
    Arrival(package.name, package.tell)
    assert package.told == [True]


def test_an_import_that_fails_is_no_arrival(package: Package) -> None:
    package.file.write_text("raise ImportError('not today')\n")
    waiting = Arrival(package.name, package.tell)
    with pytest.raises(ImportError, match="not today"):
        package.come()
    assert package.told == []
    assert "awaited" in repr(waiting)
    package.file.write_text("value = 1\n")
    package.come()
    assert package.told == [True]


def test_nothing_is_told_of_what_is_not_waited_for_any_more(package: Package) -> None:
    waiting = Arrival(package.name, package.tell)
    spec = importlib.util.find_spec(package.name)
    assert spec is not None
    assert spec.loader is not None
    waiting.cancel()
    waiting.cancel()
    package.come()
    spec.loader.exec_module(importlib.util.module_from_spec(spec))  # found while it was waited for
    assert package.told == []


@contextmanager
def served(server: Any) -> Iterator[str]:
    """A server of MCP over HTTP on loopback, in a thread of its own."""
    import uvicorn

    told: dict[str, Any] = {"log_config": None, "access_log": False, "ws": "none", "timeout_graceful_shutdown": 1}
    running = uvicorn.Server(uvicorn.Config(server.streamable_http_app(), port=0, **told))
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        while not running.started:
            thread.join(0.01)
        port = running.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        running.should_exit = True
        thread.join()


async def test_over_http_each_handler_knows_its_callers_trace_and_its_session(traced: Spans) -> None:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    server = new_server()

    @server.tool()  # type: ignore[untyped-decorator]
    def hello() -> str:
        """Greets."""
        return "hello"

    with served(server) as url:
        async with streamable_http_client(url) as streams, ClientSession(*streams[:2]) as session:
            await session.initialize()
            for caller in ("one", "other"):
                with traced.tracer.start_as_current_span(caller):
                    await session.call_tool("hello", {})
    servers = [each for each in traced.named("tools/call hello") if each.kind is SpanKind.SERVER]
    assert [traced.path(each) for each in servers] == [
        ["one", "tools/call hello", "tools/call hello"],
        ["other", "tools/call hello", "tools/call hello"],
    ]
    assert len({(each.attributes or {})["mcp.session.id"] for each in servers}) == 1
