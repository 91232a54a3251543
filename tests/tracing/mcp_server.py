"""A traced server of MCP over standard input and output, as a program: `python mcp_server.py TRACE_FILE`."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from sostenuto.tracing import instrument, provider


def main(file: str) -> None:
    """Serves until its client goes."""
    made = provider("peer", trace_file=file)
    instrument(made)
    server: Any = import_module("mcp_peers").new_server()  # only now, so that the hooks had to wait for the package

    @server.tool()  # type: ignore[untyped-decorator]
    def double(number: int) -> int:
        """Doubles a number."""
        with made.get_tracer("a user").start_as_current_span("in double"):
            return 2 * number

    server.run("stdio")
    made.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
