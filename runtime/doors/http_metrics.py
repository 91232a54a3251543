"""What a server counts, for Prometheus."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..host import Host
from ..ticket import Facts

FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SLOW = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)

_ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/sessions", "/health", "/metrics")


class Metrics:
    """Counters of one server, in a registry of their own. Nothing in them tells tenants or sessions apart."""

    def __init__(self, host: Host) -> None:
        self._registry = CollectorRegistry()
        self._cached = host.can.cached  # others do not tell what they found, and what they computed
        self._requests = self._count("requests", "Requests by route and status.", "route", "status")
        self._seconds = self._time("request_seconds", "From a request to the end of its answer.", SLOW, "route")
        self._prompt = self._count("prompt_tokens", "Tokens of prompts, of answers that came to their end.")
        self._reused = self._count("reused_tokens", "Of these, found in the pool.")
        self._computed = self._count("computed_tokens", "Of these, computed; again after a preemption included.")
        self._said = self._count("said_tokens", "Tokens of answers.")
        self._first = self._time("first_token_seconds", "From a request to its first token.", FAST)
        self._queued = self._time("queue_seconds", "A turn's wait for its start.", FAST)
        self._turns = self._gauge("turns_in_flight", "Turns that wait or run.")
        held = self._gauge("held_tokens", "Room under holds, in tokens.")
        held.set_function(lambda: host.loop.kernel.books.held * host.engine.page)

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request is over."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def begun(self, turns: int) -> None:
        self._turns.inc(turns)

    def over(self, turns: int) -> None:
        self._turns.dec(turns)

    def first_token(self, seconds: float) -> None:
        self._first.observe(seconds)

    def turn(self, facts: Facts) -> None:
        """A turn came to its end."""
        self._prompt.inc(facts.prompt_tokens)
        if self._cached:
            self._reused.inc(facts.reused_tokens)
            self._computed.inc(facts.computed_tokens + facts.recomputed_tokens)
        self._said.inc(facts.said_tokens)
        self._queued.observe(facts.queued_s)

    def page(self, accept: str) -> tuple[bytes, str]:
        """Everything, in the format that the reader prefers, and that format's name."""
        encode, kind = choose_encoder(accept)
        return encode(self._registry), kind

    def _count(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"sostenuto_{name}", what, labels, registry=self._registry)

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(f"sostenuto_{name}", what, registry=self._registry)

    def _time(self, name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"sostenuto_{name}", what, labels, registry=self._registry, buckets=buckets)


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
            self._metrics.request(_route(scope["path"]), status, clock() - begun)


def _route(path: str) -> str:
    """A label for a path; there are few, whatever is asked for."""
    return next((route for route in _ROUTES if path == route or path.startswith(f"{route}/")), "other")
