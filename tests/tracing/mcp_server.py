"""A traced server of MCP over standard input and output, as a program: `python mcp_server.py TRACE_FILE`."""

from __future__ import annotations

import sys
from typing import Any

from opentelemetry import trace

from sostenuto.tracing import instrument, provider


def main(file: str) -> None:
    """Serves until its client goes."""
    made = provider("peer", trace_file=file)
    instrument(made)
    try:
        from mcp.server.fastmcp import FastMCP as Server  # only now: the hooks have to wait for it
    except ModuleNotFoundError:
        from mcp.server.mcpserver import MCPServer as Server  # type: ignore[no-redef]
    server: Any = Server("peer", log_level="ERROR")

    @server.tool()  # type: ignore[untyped-decorator]
    def double(number: int) -> int:
        """Doubles a number."""
        with made.get_tracer("a user").start_as_current_span("in double"):
            assert trace.get_current_span().is_recording()
            return 2 * number

    server.run("stdio")
    made.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
