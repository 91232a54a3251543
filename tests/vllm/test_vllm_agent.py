"""LangGraph agents on a real vLLM: the same model class, the same wrap, the same demo."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool

from sostenuto.runtime.cli import main
from sostenuto.runtime.demo.agents import Rounds
from sostenuto.runtime.doors.langgraph import ChatSostenuto, ToolGuard, wrap
from sostenuto.runtime.engines.torch.weights import locate
from sostenuto.runtime.engines.vllm.engine import VllmEngine
from sostenuto.runtime.host import Host
from sostenuto.tracing import read_otlp_json

from .conftest import Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def run(server: Server, policy: str, meanwhile: Callable[[Host], None]) -> list[dict[str, Any]]:
    """The facts of the turns of an agent that calls one tool and then answers."""
    with Host(VllmEngine.connect(server.url), policy=policy) as host:

        @tool
        def look_up(number: int) -> str:
            """Looks a number up."""
            meanwhile(host)
            return "found"

        @tool(return_direct=True)
        def final_answer(number: int) -> str:
            """Ends."""
            return "done"

        model = ChatSostenuto(host=host, max_tokens=80, temperature=1.0, seed=3)
        middleware = [Rounds(2, last="final_answer"), ToolGuard()]
        agent = wrap(create_agent(model, [look_up, final_answer], system_prompt="Work.", middleware=middleware))
        asked: Any = {"messages": [("user", "go")]}
        told = agent.invoke(asked, {"configurable": {"thread_id": policy}, "recursion_limit": 9})
        assert "| 0 waiting | 0 running |" in host.loop.ask()
        return [m.response_metadata["sostenuto"]["turn"] for m in told["messages"] if isinstance(m, AIMessage)]


def test_a_context_held_through_a_tool_keeps_nine_tenths_of_its_tokens_under_pressure(server: Server) -> None:
    def busy(host: Host) -> None:
        server.until(lambda: len(server.sessions()), 1)
        server.churn()

    first, second = run(server, "sostenuto", busy)[:2]
    assert first["held_s"] > 0
    assert second["reused_tokens"] >= 0.9 * (first["prompt_tokens"] + first["said_tokens"])
    server.until(server.leases, {})


def test_the_same_without_a_hold_keeps_nothing(server: Server) -> None:
    first, second = run(server, "forgetful", lambda host: server.churn())[:2]
    assert first["held_s"] == 0
    assert second["reused_tokens"] == 0


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("packaged") / "log"
    # An agent that has to repair its call three times passes 2,048 tokens.
    flags = ("--dtype", "bfloat16", "--num-gpu-blocks-override", "200", "--max-model-len", "4096")
    with serving(Path(locate().path), log, *flags) as server:
        yield server


def test_the_demo_runs_on_it(packaged: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    given = ["--engine", "vllm", "--url", packaged.url, "--agents", "3", "--rounds", "2", "--out", str(out), "--json"]
    assert main(["demo", *given]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(told["policies"]) == {"sostenuto", "forgetful"}
    for policy in told["policies"].values():
        assert policy["turns"] >= 3
        assert policy["calls_valid"] >= 3
        assert policy["calls_invalid_dispatched"] == 0
    runs = [span for span in read_otlp_json(Path(told["trace"])) if span.name == "invoke_agent workshop"]
    assert len(runs) == 3
    packaged.until(packaged.leases, {})
