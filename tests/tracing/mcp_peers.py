"""A server of MCP and clients for it, in either generation of the package."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import pytest

mcp: Any = pytest.importorskip("mcp", reason="needs the package mcp: pip install 'sostenuto[mcp]'")

SECOND = hasattr(mcp, "Client")
"""Whether this is the package's second generation."""

Refused: type[Exception] = mcp.MCPError if SECOND else mcp.McpError
WAYS = ("streams", "direct") if SECOND else ("streams",)
"""How a client in the same process reaches its server."""


def new_server(name: str = "peer", **given: Any) -> Any:
    """A server whose handlers are put in by its decorators."""
    if SECOND:
        return import_module("mcp.server.mcpserver").MCPServer(name, **given)
    return import_module("mcp.server.fastmcp").FastMCP(name, **given)


@asynccontextmanager
async def connected(server: Any, way: str = "streams", **given: Any) -> AsyncIterator[Any]:
    """A client's session with a server in this process."""
    if SECOND:
        async with mcp.Client(server, mode="legacy" if way == "streams" else "auto", **given) as client:
            yield client.session
    else:
        connect = import_module("mcp.shared.memory").create_connected_server_and_client_session
        async with connect(server, **given) as session:
            yield session


def failed(result: Any) -> bool:
    """Whether a tool says that it has failed."""
    return bool(result.is_error if SECOND else result.isError)
