"""Servers of MCP for tests: a program, one in this process, one over HTTP that may want a token."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.responses import Response

mcp: Any = pytest.importorskip("mcp", reason="needs the package mcp: pip install 'sostenuto[mcp]'")
if not hasattr(mcp, "Client"):
    pytest.skip("needs mcp 2.3 or newer", allow_module_level=True)

from mcp import StdioServerParameters  # noqa: E402
from mcp.server.mcpserver import MCPServer  # noqa: E402


def program(folder: Path) -> StdioServerParameters:
    """Started anew by whoever connects."""
    source = Path(__file__).with_name("mcp_program.py")
    return StdioServerParameters(command=sys.executable, args=[str(source), str(folder)])


def until(path: Path) -> str:
    """What another process writes there."""
    pause = threading.Event()
    while not (path.exists() and path.read_text()):
        pause.wait(0.01)
    return path.read_text()


def little(description: str = "Doubles.") -> MCPServer:
    """One tool, in this process."""
    server = MCPServer("here")

    @server.tool(description=description)
    def twice(n: int) -> int:
        return 2 * n

    return server


class Guarded:
    """An application that lets calls of tools pass only with a token, and says which scopes it wants."""

    def __init__(self, inner: Any, token: str, scopes: str) -> None:
        self.inner, self.token, self.scopes = inner, token, scopes
        self.seen: list[str | None] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers") or ())
        if scope["type"] == "http" and headers.get(b"mcp-method") == b"tools/call":
            given = headers.get(b"authorization", b"").decode() or None
            self.seen.append(given)
            if given != f"Bearer {self.token}":
                told = f'Bearer error="insufficient_scope", scope="{self.scopes}"'
                await Response("no", 403, {"WWW-Authenticate": told})(scope, receive, send)
                return
        await self.inner(scope, receive, send)


@contextmanager
def over_http(app: Any, port: int = 0) -> Iterator[str]:
    """Its address, on loopback, while it is served; with `port`, there and nowhere else."""
    with socket.create_server(("127.0.0.1", port)) as listening:
        config = uvicorn.Config(app, lifespan="on", log_config=None, ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            threading.Event().wait(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()
