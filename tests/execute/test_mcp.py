"""Servers of the Model Context Protocol: listed in order, held to what they were, cancelled, killed and met again."""

from __future__ import annotations

import asyncio
import codecs
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from .mcp_peers import Guarded, little, mcp, over_http, program, until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:mcp")

from sostenuto.runtime.execute import mcp_line  # noqa: E402
from sostenuto.runtime.execute.credentials import holding  # noqa: E402
from sostenuto.runtime.execute.executor import Executor  # noqa: E402
from sostenuto.runtime.execute.mcp import McpServer, Said  # noqa: E402
from sostenuto.runtime.execute.mcp_faults import Forbidden, ServerGone, ToolSaidNo  # noqa: E402
from sostenuto.runtime.execute.mcp_text import ENCODING  # noqa: E402
from sostenuto.runtime.execute.outcome import Denied, Job  # noqa: E402
from sostenuto.runtime.execute.providers import needed_scopes  # noqa: E402
from sostenuto.tools import Call, read_tool  # noqa: E402

from .calls import READ, WRITE, policy  # noqa: E402

LOOK = read_tool({"name": "look"})


def test_tools_stand_in_the_order_of_their_names_and_say_what_they_return(tmp_path: Path) -> None:
    with McpServer("there", program(tmp_path)) as server:
        assert [tool.name for tool in server.tools] == ["fail", "hang", "number", "shout", "twice"]
        assert server.tools[4].returns is not None
        assert server.call("twice", {"n": 4}) == Said("8", {"result": 8}, server.call("twice", {"n": 4}).parts)
        assert "open 5 tools" in repr(server)
    assert "closed" in repr(server)
    with pytest.raises(ServerGone, match="not open"):
        server.call("twice", {"n": 4})
    server.close()


def test_what_a_server_writes_comes_in_whole_lines_however_it_was_cut() -> None:
    text = "{}\n" + "é" * 9 + "\n\n€ and no end"
    written = text.encode()
    for size in range(1, len(written) + 1):
        decoder = codecs.getincrementaldecoder(ENCODING)()
        pieces = [written[at : at + size] for at in range(0, len(written), size)]
        said = [decoder.decode(piece) for piece in pieces]
        assert all(each.endswith("\n") for each in said if each), "a line in pieces is copied with each of them"
        assert "".join(said) + decoder.decode(b"", True) == text
    decoder = codecs.getincrementaldecoder(ENCODING)("replace")
    assert [decoder.decode(b"\xff"), decoder.decode(b"\n")] == ["", "\ufffd\n"]
    decoder.decode(b"lost")
    decoder.reset()
    assert decoder.decode(b"kept\n") == "kept\n"


def test_fifty_megabytes_come_whole_over_stdio(tmp_path: Path) -> None:
    with McpServer("there", program(tmp_path)) as server:
        assert server.call("shout", {"megabytes": 50}).text == "A" * 50_000_000


def test_one_connection_serves_threads_and_event_loops(tmp_path: Path) -> None:
    with McpServer("there", program(tmp_path)) as server:
        numbers = {server.call("number", {}).text}
        for _ in range(2):
            numbers |= {asyncio.run(server.acall("number", {})).text}
    assert len(numbers) == 1


def test_a_tool_that_fails_says_so_and_one_that_is_not_there_is_not_asked_for(tmp_path: Path) -> None:
    with McpServer("there", program(tmp_path)) as server:
        with pytest.raises(ToolSaidNo, match="nobody knows"):
            server.call("fail", {})
        with pytest.raises(Denied, match="no tool 'steal'") as no:
            server.call("steal", {})
        assert no.value.code == "missing"


def test_a_server_that_cannot_be_had_is_said_so_and_leaves_no_thread() -> None:
    before = threading.active_count()
    for where in (mcp.StdioServerParameters(command="/nowhere/at-all"), "http://127.0.0.1:9/mcp"):
        with pytest.raises(ServerGone, match="the server there cannot be had"):
            McpServer("there", where).open()
    assert threading.active_count() == before


def test_a_server_that_never_says_a_word_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    monkeypatch.setattr(mcp_line, "MEET_S", 0.5)
    silent = mcp.StdioServerParameters(command=sys.executable, args=["-c", "import sys; sys.stdin.read()"])
    with pytest.raises(ServerGone, match=r"cannot be had: it did not introduce itself within 0\.5 s"):
        McpServer("there", silent).open()
    assert threading.active_count() == before


async def test_a_call_that_is_cancelled_here_is_cancelled_at_the_server(tmp_path: Path) -> None:
    with McpServer("there", program(tmp_path)) as server:
        task = asyncio.create_task(server.acall("hang", {}))
        await asyncio.to_thread(until, tmp_path / "begun")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(until, tmp_path / "ended") == "cancelled"


def test_a_call_in_a_thread_that_is_given_up_is_cancelled_at_the_server(tmp_path: Path) -> None:
    with McpServer("there", program(tmp_path)) as server:
        executor = Executor(policy(WRITE, timeout=60))
        job = Job(Call("c", "look", {}, "{}"), LOOK)
        done: list[str] = []
        thread = threading.Thread(target=lambda: done.append(executor.run(job, lambda: server.call("hang", {})).code))
        thread.start()
        until(tmp_path / "begun")
        assert executor.cancel("enough", lambda _: True) == 1
        thread.join(30)
        assert (done, until(tmp_path / "ended")) == (["unknown"], "cancelled")
        while "0 taken" not in repr(executor):  # its thread has ended, too
            threading.Event().wait(0.001)


@pytest.mark.parametrize(("contract", "code"), [(READ, "failed"), (WRITE, "unknown")])
def test_a_server_that_is_killed_in_a_call_is_told_and_the_next_call_starts_another(
    tmp_path: Path, contract: Any, code: str
) -> None:
    with McpServer("there", program(tmp_path)) as server:
        executor = Executor(policy(contract))
        before = server.call("number", {}).text
        killer = threading.Thread(target=lambda: os.kill(int(until(tmp_path / "begun")), signal.SIGKILL))
        killer.start()
        job = Job(Call("c", "look", {}, "{}"), LOOK)
        assert executor.run(job, lambda: server.call("hang", {})).code == code
        killer.join(30)
        after = executor.run(job, lambda: server.call("number", {}))
        assert (after.code, after.value.text == before) == ("ran", False)
        assert "0 running | <Slots 0 taken, 0 waiting>" in repr(executor)


def test_a_server_that_died_between_two_calls_is_started_again_before_the_second_is_sent(tmp_path: Path) -> None:
    with McpServer("there", program(tmp_path)) as server:
        before = server.call("number", {}).text
        os.kill(int(before), signal.SIGKILL)
        while "gone" not in repr(server):
            threading.Event().wait(0.001)
        assert server.call("number", {}).text != before


def test_a_tool_that_changes_is_not_called_until_somebody_has_looked(tmp_path: Path) -> None:
    with McpServer("there", program(tmp_path)) as server:
        assert server.call("twice", {"n": 1}).text == "2"
        (tmp_path / "sly").touch()
        os.kill(int(server.call("number", {}).text), signal.SIGKILL)  # it comes back as another
        while "gone" not in repr(server):
            threading.Event().wait(0.001)
        executor = Executor(policy(READ, retries=3))
        outcome = executor.run(Job(Call("c", "look", {}, "{}"), LOOK), lambda: server.call("twice", {"n": 1}))
        assert (outcome.code, "has changed" in outcome.told, outcome.attempts) == ("denied", True, 1)
        assert server.call("number", {}).text, "the others are as they were"
        assert "password" in server.accept()[4].description
        assert server.call("twice", {"n": 1}).text == "2"


def test_a_tool_that_changes_under_a_connection_is_seen_when_its_list_is_stale() -> None:
    here = little()
    with McpServer("here", here, fresh=0) as server:
        assert server.call("twice", {"n": 2}).text == "4"
        here.remove_tool("twice")
        with pytest.raises(Denied, match="not there any more") as gone:
            server.call("twice", {"n": 2})
        here.add_tool(lambda n: 3 * n, name="twice", description="Doubles.")
        with pytest.raises(Denied, match="has changed"):
            server.call("twice", {"n": 2})
    assert gone.value.code == "changed"


def test_a_tool_whose_schema_cannot_be_used_is_left_out_and_named() -> None:
    from mcp.server import Server
    from mcp.types import ListToolsResult
    from mcp.types import Tool as Listed

    async def listed(ctx: Any, params: Any) -> ListToolsResult:
        bad = {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:9/steal.json"}}}
        slow = {"type": "object", "properties": {"x": {"type": "string", "pattern": "^(a+)+$"}}}
        found: list[tuple[str, Any]] = [("good", {"type": "object"}), ("far", bad), ("slow", slow)]
        return ListToolsResult(tools=[Listed(name=name, input_schema=schema) for name, schema in found])

    with McpServer("here", Server("here", on_list_tools=listed)) as server:
        assert ([tool.name for tool in server.tools], list(server.refused)) == (["good"], ["far", "slow"])
        with pytest.raises(Denied, match="can be used"):
            server.call("far", {})


def test_over_http_a_server_is_called_and_one_that_went_away_is_met_again() -> None:
    here = little()
    server: McpServer
    with over_http(here.streamable_http_app()) as address:
        server = McpServer("here", address).open()
        assert server.call("twice", {"n": 4}).structured == {"result": 8}
    with pytest.raises(mcp.MCPError):
        server.call("twice", {"n": 4})
    with over_http(little().streamable_http_app(), int(address.split(":")[2].split("/")[0])):
        assert server.call("twice", {"n": 5}).text == "10"
    server.close()


def test_a_server_that_wants_more_scope_says_which_and_a_token_is_for_one_call() -> None:
    door = Guarded(little().streamable_http_app(), "narrow", "sums:write sums:admin")
    with over_http(door) as address, McpServer("here", address) as server:
        with pytest.raises(Forbidden) as refused:
            server.call("twice", {"n": 4})
        assert needed_scopes(refused.value) == ("sums:write", "sums:admin")
        with holding("narrow"):
            assert server.call("twice", {"n": 4}).text == "8"
            assert asyncio.run(server.acall("twice", {"n": 5})).text == "10"
        with pytest.raises(Forbidden):
            server.call("twice", {"n": 4})
    assert door.seen == [None, "Bearer narrow", "Bearer narrow", None]
