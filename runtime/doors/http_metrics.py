"""What a server counts beside what its engine does: requests by route and status, turns on their way."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...tracing import names
from ...tracing.page import Page

_ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/sessions", "/health", "/metrics")
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


class Metrics:
    """Numbers of one server, on a page of its own. Nothing in them tells tenants or sessions apart."""

    def __init__(self) -> None:
        self._page = Page()
        self._page.add(names.TURNS_IN_FLIGHT, 0, {})  # from the first page on

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request is over."""
        facts: dict[str, str | int] = {names.HTTP_METHOD: method, names.HTTP_ROUTE: route, names.HTTP_STATUS: status}
        self._page.record(names.HTTP_DURATION, seconds, facts)

    def begun(self, turns: int) -> None:
        self._page.add(names.TURNS_IN_FLIGHT, turns, {})

    def over(self, turns: int) -> None:
        self._page.add(names.TURNS_IN_FLIGHT, -turns, {})

    def page(self, accept: str) -> tuple[bytes, str]:
        """Everything, in the format that the reader prefers, and that format's name."""
        return self._page.read(accept)


class Counted:
    """Counts every request by route and status."""

    def __init__(self, inner: ASGIApp, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._inner(scope, receive, send)
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            await self._inner(scope, receive, noting)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
            self._metrics.request(method, _route(scope["path"]), status, clock() - begun)


def _route(path: str) -> str:
    """A label for a path; there are few, whatever is asked for."""
    return next((route for route in _ROUTES if path == route or path.startswith(f"{route}/")), "other")
