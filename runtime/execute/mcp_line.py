"""A connection with a server of the Model Context Protocol: opened, used and closed in one task, until either goes."""

from __future__ import annotations

import asyncio
import codecs
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any, TypeAlias

import httpx2
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import Server
from mcp.server.mcpserver import MCPServer
from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult, Implementation
from mcp.types import Tool as Listed

from .mcp_faults import Forbidden, ServerGone
from .mcp_text import ENCODING

Where: TypeAlias = str | StdioServerParameters | Server[Any] | MCPServer | Callable[[], Any]
"""An address (streamable HTTP), a program (stdio), a server in this process, or what makes a transport anew."""
PAGES = 100
"""Of a list of tools; a server that has more is taken to have no end."""
CONNECT_S = 10.0
"""Seconds for which somebody is waited for who does not answer the door."""
MEET_S = 60.0
"""Seconds until a server has to have introduced itself: a program may be fetched first."""
CLOSED = -32000
"""The protocol's package: the connection ended under a request."""
MARK = "sostenuto/call"
"""Under which a call's number stands in its `_meta`, so that what HTTP says of it can be told from the others'."""
_CALL = re.compile(rb'"sostenuto/call":\s*(\d+)')


class Line:
    """To one server, under one token. Everything here runs in one event loop."""

    def __init__(self, where: Where, token: str | None = None) -> None:
        self.gone = False
        """Nothing that is sent from now on would arrive."""
        self._where = where
        self._token = token
        self._numbers = count(1)
        self._forbidden: dict[int, httpx2.Response] = {}
        self._stop = asyncio.Event()
        self._client: Client | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Raises whatever keeps the two from meeting; ServerGone for who does not introduce himself."""
        met: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._hold(met))
        try:
            async with asyncio.timeout(MEET_S):
                self._client = await met
        except BaseException as error:
            self._task.cancel()  # it may wait for who never says a word
            await self.close()
            if isinstance(error, TimeoutError):
                raise ServerGone(f"it did not introduce itself within {MEET_S:g} s") from error
            raise

    async def close(self) -> None:
        """What it started is ended: the program, the session, the sockets."""
        self.gone = True
        self._stop.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def listed(self) -> list[Listed]:
        """All tools, asked of the server itself."""
        found: list[Listed] = []
        cursor: str | None = None
        for _ in range(PAGES):
            page = await self._met.list_tools(cursor=cursor)
            found += page.tools
            cursor = page.next_cursor
            if not cursor:
                return found
        raise ServerGone(f"its list of tools has more than {PAGES} pages")

    async def call(self, name: str, arguments: dict[str, Any]) -> CallToolResult:
        """One call, sent once. Raises Forbidden for a server that wants more scope, MCPError, ServerGone."""
        if self.gone:
            raise ServerGone("its connection is closed")
        number = next(self._numbers)
        try:
            # Not the client's own `call_tool`: that sends a call again if the tool's schema has changed since, and
            # holds results against their schema without an end to how long that may take.
            asked = CallToolRequestParams.model_validate(
                {"name": name, "arguments": arguments, "_meta": {MARK: number}}
            )
            return await self._met.session.send_request(CallToolRequest(params=asked), CallToolResult)
        except MCPError as error:
            refused = self._forbidden.pop(number, None)
            if refused is not None:
                raise Forbidden(refused) from error
            if error.code == CLOSED or "Session terminated" in error.message:
                self.gone = True
            raise

    @property
    def _met(self) -> Client:
        assert self._client is not None  # whoever uses a line has opened it
        return self._client

    async def _hold(self, met: asyncio.Future[Client]) -> None:
        try:
            async with AsyncExitStack() as stack:
                server = await self._server(stack)
                info = Implementation(name="sostenuto", version="0")
                client = await stack.enter_async_context(Client(server, cache=None, client_info=info))
                if not met.cancelled():
                    met.set_result(client)
                await self._stop.wait()
        except Exception as error:  # of the transport: of no interest to whoever has left, told to whoever waits
            if not met.done():
                met.set_exception(error)
        finally:
            self.gone = True
            if not met.done():
                met.cancel()

    async def _server(self, stack: AsyncExitStack) -> Any:
        where = self._where
        if isinstance(where, Server | MCPServer):
            return where
        if isinstance(where, str):
            headers = None if self._token is None else {"Authorization": f"Bearer {self._token}"}
            hooks = {"response": [self._heard]}
            # Answers are streams that may be silent for long: how long a call may take is the executor's to say.
            patient = httpx2.Timeout(CONNECT_S, read=None)
            http = httpx2.AsyncClient(headers=headers, event_hooks=hooks, timeout=patient, follow_redirects=False)
            await stack.enter_async_context(http)
            return self._tapped(streamable_http_client(where, http_client=http))
        if isinstance(where, StdioServerParameters):
            lines = ENCODING if codecs.lookup(where.encoding).name == "utf-8" else where.encoding
            return self._tapped(stdio_client(where.model_copy(update={"encoding": lines})))
        return self._tapped(where())

    async def _heard(self, response: httpx2.Response) -> None:
        """The package keeps a status to itself; of this one it must be known what the server wants."""
        if response.status_code == httpx2.codes.FORBIDDEN:
            asked = _CALL.search(response.request.content)
            if asked is not None:
                self._forbidden[int(asked[1])] = response

    @asynccontextmanager
    async def _tapped(self, transport: Any) -> AsyncIterator[tuple[Any, Any]]:
        """The same, and it is noted when the server's side has ended: nobody else would say so before the next call."""
        async with transport as (read, write):
            yield _Tap(read, self._ended), write

    def _ended(self) -> None:
        self.gone = True


class _Tap:
    """A stream, and who hears of its end."""

    def __init__(self, stream: Any, ended: Callable[[], None]) -> None:
        self._stream = stream
        self._tell = ended

    @property
    def last_context(self) -> Any:
        return getattr(self._stream, "last_context", None)

    async def receive(self) -> Any:
        return await self._stream.receive()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> _Tap:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._stream.__anext__()
        except BaseException:
            self._tell()
            raise

    async def __aenter__(self) -> _Tap:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        return await self._stream.__aexit__(*error)
