"""What may go wrong with a server of tools, apart from what its tools say."""

from __future__ import annotations

from typing import Any

from ..errors import SostenutoError


class ServerGone(SostenutoError, ConnectionError):
    """A server of tools that is not there any more, or was never heard of."""


class ToolSaidNo(SostenutoError):
    """A tool that was called and says itself that it has failed."""


class Forbidden(SostenutoError, PermissionError):
    """A server that lets nobody pass without more scope; `response` is what it said over HTTP."""

    def __init__(self, response: Any) -> None:
        super().__init__(f"its server answered {response.status_code}")
        self.response = response
