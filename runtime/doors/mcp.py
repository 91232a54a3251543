"""Guarded tools as a server of the Model Context Protocol: whoever calls meets the same checks as our own graphs."""

from __future__ import annotations

import json
from typing import Any

import anyio
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams, TextContent
from mcp.types import Tool as Listed

from ...tools import Call
from ..execute.authority import Place
from ..execute.toolset import Toolset

SESSION = "mcp"
"""Of all calls to one server: a client that begins anew gets no new budget by that."""


def mcp_server(tools: Toolset, *, name: str = "sostenuto", tenant: str = "default") -> Server[Any]:
    """For `serve_stdio`, or with `.streamable_http_app()` for any ASGI server, behind whatever knows its callers.

    A call that does not fit, is not granted or fails is an error result in few words; nothing else gets out.
    """

    async def listed(context: ServerRequestContext[Any], params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(
            tools=[
                Listed(
                    name=tool.name,
                    description=tool.description,
                    input_schema=dict(tool.parameters),
                    output_schema=None if tool.returns is None else dict(tool.returns),
                )
                for tool in tools.tools
            ]
        )

    async def called(context: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        number = str(context.request_id)
        arguments = dict(params.arguments or {})
        call = Call(number, params.name, arguments, json.dumps(arguments, ensure_ascii=False))
        outcome = await tools.run(call, Place(tenant, SESSION, f"request {number}"))
        if not outcome.answered:
            return CallToolResult(content=[TextContent(text=outcome.told)], is_error=True)
        value = outcome.value
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        structured = any(tool.name == params.name and tool.returns is not None for tool in tools.tools)
        return CallToolResult(content=[TextContent(text=text)], structured_content=value if structured else None)

    return Server(name, on_list_tools=listed, on_call_tool=called)


def serve_stdio(server: Server[Any]) -> None:
    """Over standard input and output, until the client goes."""

    async def serve() -> None:
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())

    anyio.run(serve)
