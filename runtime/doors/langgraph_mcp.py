"""Tools of MCP servers as LangChain's, for any graph; under a guard they are held to all that is said of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.tools import BaseTool, ToolException
from pydantic import ConfigDict, Field

from ..execute.mcp import McpServer
from ..execute.mcp_faults import ToolSaidNo


class McpTool(BaseTool):
    """One. What it has to say for itself besides its text is the message's artifact."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    response_format: Any = "content_and_artifact"
    spec: Any = Field(repr=False)
    """The tool as its server listed it. (pydantic cannot read a type that knows itself, as JSON's does.)"""
    source: McpServer = Field(repr=False, exclude=True)

    @property
    def server(self) -> str:
        """Under which name grants know where it comes from."""
        return self.source.name

    def _run(self, **given: Any) -> tuple[str, Any]:
        with _told():
            said = self.source.call(self.name, given)
        return said.text, said.structured

    async def _arun(self, **given: Any) -> tuple[str, Any]:
        with _told():
            said = await self.source.acall(self.name, given)
        return said.text, said.structured


def mcp_tools(*servers: McpServer) -> list[BaseTool]:
    """The tools of servers that are open, server after server, each server's by name.

    Raises ValueError where two of them have a tool of the same name: rename one, or give them to different nodes.
    """
    found: list[BaseTool] = []
    for server in servers:
        for spec in server.tools:
            if any(spec.name == one.name for one in found):
                raise ValueError(
                    f"two servers have a tool {spec.name!r}: expected one; give each server a node of its own"
                )
            schema: Any = dict(spec.parameters)
            found.append(
                McpTool(name=spec.name, description=spec.description, args_schema=schema, spec=spec, source=server)
            )
    return found


@contextmanager
def _told() -> Iterator[None]:
    """What a tool says of its own failure is what LangChain's tools raise for that."""
    try:
        yield
    except ToolSaidNo as no:
        raise ToolException(str(no)) from no
