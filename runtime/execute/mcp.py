"""Tools of a server of the Model Context Protocol: listed, held to what they were then, and called.

A server lives in a thread of its own with its own event loop, so that graphs which are invoked and graphs which are
awaited use one connection; a call that is given up on either side is cancelled at the server.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from mcp.types import CallToolResult, TextContent
from mcp.types import Tool as Listed

from ...tools import BadTool, Json, Tool, read_tool
from ...tools.grants_names import tool_digest
from .cancel import when_cancelled
from .clock import Clock
from .credentials import credential
from .mcp_faults import ServerGone, ToolSaidNo
from .mcp_line import Line, Where
from .outcome import Denied

FRESH = 30.0
"""Seconds for which a list of tools is believed before a call asks for it again."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a tool answered."""

    text: str
    """All of its text, a part to a line; other parts are named."""
    structured: Json = None
    """Its structured result, where it has one."""
    parts: tuple[Any, ...] = field(default=(), repr=False)
    """As the protocol's package has them."""


class McpServer:
    """A server's tools. Open it in a `with`; any thread and any event loop may call them then.

    Tools stand in the order of their names, whatever order the server gives, so that a prompt with them is always the
    same. What a server says of a tool when it is first listed is what it is held to: a tool whose description or
    schema has changed since is not called, until somebody looked at it and said `accept`. A server that died is
    started, or met, anew by the next call, and the same check applies to what it says then.
    """

    def __init__(self, name: str, where: Where, *, fresh: float = FRESH, clock: Clock | None = None) -> None:
        """`name` is what grants know it by. `fresh` 0 asks for the list before every call."""
        self.name = name
        self.tools: tuple[Tool, ...] = ()
        self.refused: Mapping[str, str] = {}
        """Listed tools that cannot be used, by name, and why."""
        self._where = where
        self._fresh = fresh
        self._clock = clock or Clock()
        self._line: Line | None = None
        self._lock = asyncio.Lock()
        self._now: dict[str, str] = {}
        """Digests of the tools as they were last listed."""
        self._asked = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> McpServer:
        """Connects and lists. Raises ServerGone for a server that cannot be had."""
        begun: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._work, args=(begun,), name=f"sostenuto-mcp-{self.name}", daemon=True
        )
        self._thread.start()
        begun.result()
        coming = self._within(self._accept())
        try:
            coming.result()
        except BaseException as error:
            coming.cancel()
            self.close()
            if isinstance(error, Exception):
                raise ServerGone(f"the server {self.name} cannot be had: {_root(error)}") from error
            raise
        return self

    def close(self) -> None:
        """The connection ends, and with it the program, if it was started here. Twice is harmless."""
        if self._loop is None or self._thread is None:
            return
        self._within(self._leave()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop = self._thread = None

    def accept(self) -> tuple[Tool, ...]:
        """The tools as they are now, looked through and taken: they are what `tools` says from now on."""
        self._within(self._accept()).result()
        return self.tools

    def call(self, name: str, arguments: Mapping[str, Any]) -> Said:
        """Raises Denied for a tool that has changed, ToolSaidNo, ServerGone, Forbidden, MCPError."""
        coming = self._within(self._call(name, dict(arguments), credential()))
        when_cancelled(coming.cancel)
        said: Said = coming.result()
        return said

    async def acall(self, name: str, arguments: Mapping[str, Any]) -> Said:
        """As `call`; cancelled, it is cancelled at the server."""
        said: Said = await asyncio.wrap_future(self._within(self._call(name, dict(arguments), credential())))
        return said

    def __enter__(self) -> McpServer:
        return self.open()

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._loop is None else "gone" if self._line is None or self._line.gone else "open"
        return f"<McpServer {self.name} {state} {len(self.tools)} tools>"

    def _work(self, begun: Future[None]) -> None:
        loop = asyncio.new_event_loop()
        self._loop = loop
        loop.call_soon(begun.set_result, None)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def _within(self, work: Any) -> Future[Any]:
        """In the server's loop, with the caller's context: its span, its token."""
        if self._loop is None:
            work.close()
            raise ServerGone(f"the server {self.name} is not open: use it in a `with`")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _call(self, name: str, arguments: dict[str, Any], token: str | None) -> Said:
        line = await self._checked()
        self._unchanged(name)
        if token is not None and isinstance(self._where, str):  # for this call alone, and so is the connection
            line = Line(self._where, token)
            await line.open()
            try:
                return _said(await line.call(name, arguments))
            finally:
                await line.close()
        return _said(await line.call(name, arguments))

    async def _checked(self) -> Line:
        """A line to the server that is there, whose list of tools is not older than it may be."""
        async with self._lock:
            line = self._line
            if line is None or line.gone:
                await self._hang_up()
                line = Line(self._where)
                await line.open()
                self._line, self._asked = line, -self._fresh - 1
            if self._clock.monotonic() - self._asked >= self._fresh:
                await self._list(line)
            return line

    async def _list(self, line: Line) -> list[Listed]:
        found = await line.listed()
        self._now = {}
        for each in found:
            try:
                self._now[each.name] = tool_digest(_read(each))
            except BadTool:
                self._now[each.name] = "refused"
        self._asked = self._clock.monotonic()
        return found

    async def _accept(self) -> None:
        line = await self._checked()
        async with self._lock:
            tools: dict[str, Tool] = {}
            refused: dict[str, str] = {}
            for each in await self._list(line):
                try:
                    tools[each.name] = _read(each)
                except BadTool as bad:
                    refused[each.name] = str(bad)
            self.tools = tuple(tools[name] for name in sorted(tools))
            self.refused = dict(sorted(refused.items()))

    def _unchanged(self, name: str) -> None:
        then = next((tool_digest(tool) for tool in self.tools if tool.name == name), None)
        if then is None:
            raise Denied("missing", f"the server {self.name} has no tool {name[:140]!r} that can be used")
        if self._now.get(name) != then:
            what = "has changed" if name in self._now else "is not there any more"
            raise Denied("changed", f"{name} {what} since the server {self.name} was looked at")

    async def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            await line.close()

    async def _leave(self) -> None:
        async with self._lock:
            await self._hang_up()


def _read(listed: Listed) -> Tool:
    """Raises BadTool. A hint of the server's never becomes a contract, so its annotations are left out."""
    return read_tool(
        {
            "name": listed.name,
            "description": listed.description or "",
            "inputSchema": listed.input_schema,
            "outputSchema": listed.output_schema,
        }
    )


def _said(result: CallToolResult) -> Said:
    parts = [part.text if isinstance(part, TextContent) else f"[{part.type}]" for part in result.content]
    text = "\n".join(parts)
    if result.is_error:
        raise ToolSaidNo(text or "it does not say why")
    return Said(text, result.structured_content, tuple(result.content))


def _root(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
