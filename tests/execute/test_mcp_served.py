"""Our own guarded tools as a server: whoever calls them is checked, granted, limited and recorded like a graph."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import sostenuto

from .mcp_peers import mcp

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:mcp")

from sostenuto.runtime.cli import main  # noqa: E402
from sostenuto.runtime.doors.mcp import mcp_server  # noqa: E402
from sostenuto.runtime.execute.audit import Audit, verify_file  # noqa: E402
from sostenuto.runtime.execute.executor import Executor  # noqa: E402
from sostenuto.runtime.execute.mcp import McpServer  # noqa: E402
from sostenuto.runtime.execute.policy import Policy  # noqa: E402
from sostenuto.runtime.execute.toolset import Toolset  # noqa: E402
from sostenuto.tools.contracts import Contract  # noqa: E402
from sostenuto.tools.grants import Ceiling  # noqa: E402

KEY = b"a key of thirty-two bytes, or so"
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
SPECS: Any = [
    {"name": "twice", "description": "Doubles.", "inputSchema": NUMBER, "outputSchema": NUMBER},
    {"name": "erase", "inputSchema": {"type": "object"}},
    {"name": "fail", "inputSchema": {"type": "object"}},
]
RAN: list[str] = []


def twice(n: int) -> Any:
    RAN.append(f"twice {n}")
    return {"n": 2 * n} if n < 100 else {"n": "many"}


async def fail() -> str:
    raise LookupError("nobody knows")


FUNCTIONS: Any = {"twice": twice, "erase": lambda: RAN.append("erase"), "fail": fail}


async def test_calls_from_elsewhere_are_held_to_schemas_grants_and_budgets_and_written_down(tmp_path: Path) -> None:
    RAN.clear()
    path = tmp_path / "audit.jsonl"
    with Audit(path, KEY) as audit:
        executor = Executor(Policy({"twice": Contract("read")}), audit=audit)
        grants = {"twice": Ceiling({"properties": {"n": {"maximum": 100}}}, calls=2), "fail": Ceiling()}
        server = mcp_server(Toolset(SPECS, FUNCTIONS, executor=executor, grants=grants))
        told = []
        for _ in range(2):  # a client that comes again has no new budget
            async with mcp.Client(server) as client:
                assert [tool.name for tool in (await client.list_tools()).tools] == ["twice", "erase", "fail"]
                for name, given in (("twice", {"n": 4}), ("twice", {"n": "4"}), ("twice", {"n": 101}), ("erase", {})):
                    told.append(await client.session.call_tool(name, given))
        async with mcp.Client(server) as client:
            told += [await client.call_tool("fail", {}), await client.call_tool("nobody", {})]
            told.append(await client.call_tool("twice", {"n": 5}))
    assert [result.is_error for result in told] == [False, True, True, True] * 2 + [True] * 3
    assert told[0].structured_content == {"n": 8}
    assert "Traceback" not in str(told)
    assert "LookupError: nobody knows" in told[8].content[0].text
    assert RAN == ["twice 4", "twice 4"]
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    why = [one["why"] for one in lines if one["kind"] == "decided" and not one["allowed"]]
    assert why == ["invalid", "constraint", "missing", "invalid", "spent", "missing", "unknown tool", "spent"]
    assert verify_file(path, KEY).faults == ()


async def test_a_result_that_is_not_what_was_promised_does_not_get_out() -> None:
    async with mcp.Client(mcp_server(Toolset(SPECS, FUNCTIONS))) as client:
        await client.list_tools()
        result = await client.call_tool("twice", {"n": 100})
    assert (result.is_error, "/n" in result.content[0].text) == (True, True)


def test_the_command_line_serves_a_set_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "mine.py"
    source.write_text(
        textwrap.dedent("""
        from sostenuto.runtime.execute.toolset import Toolset
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        tools = Toolset([{"name": "twice", "inputSchema": schema}], {"twice": lambda n: 2 * n})
        other = 3
    """)
    )
    arguments = ["-m", "sostenuto.runtime.cli", "tools", "serve", f"{source}:tools"]
    there = {"PYTHONPATH": str(Path(str(sostenuto.__file__)).parents[1])}  # of the environment little goes along
    with McpServer("mine", mcp.StdioServerParameters(command=sys.executable, args=arguments, env=there)) as server:
        assert server.call("twice", {"n": 21}).text == "42"
    for wrong in (f"{source}:other", f"{tmp_path}/none.py:tools"):
        assert main(["tools", "serve", wrong]) == 1
    assert "has no Toolset other: found int" in capsys.readouterr().err
