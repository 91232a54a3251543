"""`sostenuto tools serve`: a set of guarded tools for whoever speaks the Model Context Protocol."""

from __future__ import annotations

import argparse
from typing import Any

from .errors import MissingPackage
from .execute.toolset import Toolset
from .learnt import named_in


def tools_serve_options(commands: Any) -> None:
    """What `sostenuto tools serve` takes."""
    serve = commands.add_parser(
        "serve", help="serve your tools over stdio as an MCP server: checked, granted, limited and recorded"
    )
    serve.add_argument("tools", metavar="FILE.py:NAME", help="a Toolset, with the executor and grants that it has")
    serve.add_argument("--name", default="sostenuto", help="what the server calls itself (default: sostenuto)")
    serve.add_argument(
        "--tenant", default="default", help="for whom calls are made, where a policy tells tenants apart"
    )


def tools_served(options: argparse.Namespace) -> int:
    """Until the client goes. Raises ValueError for what is no Toolset, MissingPackage without `mcp`."""
    file, _, name = options.tools.rpartition(":")
    found = named_in(file, name, "tools")
    if not isinstance(found, Toolset):
        raise ValueError(f"tools: {file} has no Toolset {name}: found {type(found).__name__}")
    try:
        from .doors.mcp import mcp_server, serve_stdio
    except ImportError as error:
        raise MissingPackage("serving tools needs mcp 2.3 or newer: pip install 'sostenuto[mcp]'") from error
    serve_stdio(mcp_server(found, name=options.name, tenant=options.tenant))
    return 0
