"""The `mcp` package, traced: its clients' requests, and what its servers do about them. Nothing here imports it.

Two generations of the package are known, 1.x from 1.24 on and 2.x. The second opens spans of its own, which go to the
global provider and say less: while ours are on they take the place of those.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from importlib import import_module
from typing import Any, get_args
from weakref import WeakKeyDictionary

from opentelemetry.trace import NoOpTracer, Tracer

from . import names
from .graph_signals import Switch
from .mcp_calls import Exchange, Message, sending, serving
from .spans import off

PACKAGE = "mcp"

_log = logging.getLogger(__name__)

Hook = tuple[Any, str, Callable[[Any, Switch], Any]]
_Async = Callable[..., Awaitable[Any]]


def hooks() -> list[Hook]:
    """The hooks for the imported package; for one that has no place for all of them none, and a line in the log."""
    for generation in (_FIRST, _SECOND):
        found = [(_owner(place), name, wrap) for place, name, wrap in generation]
        if all(name in vars(owner) for owner, name, _ in found):
            return found
    _log.warning("requests of MCP get no spans: use mcp 1.24 or newer of the 1.x or the 2.x series, or report this")
    return []


def traced_request(send: _Async, switch: Switch) -> _Async:
    """1.x, both sides: `BaseSession.send_request`."""

    @wraps(send)
    async def wrapper(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        if _idle(switch):
            return await send(self, request, *args, **kwargs)
        with sending(_told(request, version=_versions.get(self))) as exchange:
            result = await send(self, _carrying(request, exchange.carried), *args, **kwargs)
            _agreed(self, exchange, getattr(result, "protocolVersion", None))
            exchange.answered(result)
            return result

    return wrapper


def traced_handler(handle: _Async, switch: Switch) -> _Async:
    """1.x: `Server._handle_request`, under which the handlers run."""

    @wraps(handle)
    async def wrapper(self: Any, message: Any, req: Any, session: Any, *args: Any, **kwargs: Any) -> Any:
        if _idle(switch):
            return await handle(self, message, req, session, *args, **kwargs)
        with _serving(message, session):
            return await handle(self, message, req, session, *args, **kwargs)

    return wrapper


def traced_received(receive: _Async, switch: Switch) -> _Async:
    """1.x: `ClientSession._received_request`, which answers what servers ask of clients."""

    @wraps(receive)
    async def wrapper(self: Any, responder: Any) -> Any:
        if _idle(switch):
            return await receive(self, responder)
        with _serving(responder, self):
            return await receive(self, responder)

    return wrapper


def traced_beginning(receive: _Async, switch: Switch) -> _Async:
    """1.x: `ServerSession._received_request`, which answers `initialize` itself and leaves all else to the server."""

    @wraps(receive)
    async def wrapper(self: Any, responder: Any) -> Any:
        if _idle(switch) or _told(responder.request).method != "initialize":
            return await receive(self, responder)
        with _serving(responder, self):
            return await receive(self, responder)

    return wrapper


def traced_response(respond: _Async, switch: Switch) -> _Async:
    """1.x: `RequestResponder.respond`, which shows how a request was answered."""

    @wraps(respond)
    async def wrapper(self: Any, response: Any) -> Any:
        exchange = _exchanges.pop(self, None)
        if exchange is not None:
            if type(response).__name__ == "ErrorData":
                exchange.refused(response.code)
            else:
                exchange.answered(getattr(response, "root", response))
        return await respond(self, response)

    return wrapper


def traced_raw(send: _Async, switch: Switch) -> _Async:
    """2.x, both sides: `send_raw_request` of a dispatcher."""

    @wraps(send)
    async def wrapper(self: Any, method: str, params: Mapping[str, Any] | None, *args: Any, **kwargs: Any) -> Any:
        if _idle(switch):
            return await send(self, method, params, *args, **kwargs)
        message = Message(method, params or {})
        version = message.meta.get(_VERSION_KEY) or _versions.get(self)
        with sending(Message(method, params or {}, version=version)) as exchange:
            if exchange.carried:
                params = {**(params or {}), "_meta": {**message.meta, **exchange.carried}}
            result = await send(self, method, params, *args, **kwargs)
            _agreed(self, exchange, result.get("protocolVersion"))
            exchange.answered(result)
            return result

    return wrapper


def traced_asked(answer: _Async, switch: Switch) -> _Async:
    """2.x: `ClientSession._on_request`, which answers what servers ask of clients."""

    @wraps(answer)
    async def wrapper(self: Any, dctx: Any, method: str, params: Mapping[str, Any] | None) -> Any:
        if _idle(switch):
            return await answer(self, dctx, method, params)
        with serving(Message(method, params or {}, version=self.protocol_version)) as exchange:
            result = await answer(self, dctx, method, params)
            exchange.answered(result)
            return result

    return wrapper


def traced_middleware(call: _Async, switch: Switch) -> _Async:
    """2.x: the server's middleware that opens the package's own spans; ours instead, and none for notifications."""

    @wraps(call)
    async def wrapper(self: Any, ctx: Any, call_next: _Async) -> Any:
        if not switch.on:
            return await call(self, ctx, call_next)
        if off() or ctx.request_id is None:
            return await call_next(ctx)
        session = _header(_headers(ctx.request), "mcp-session-id")
        message = Message(ctx.method, ctx.params or {}, session=session, version=ctx.protocol_version)
        with serving(message) as exchange:
            result = await call_next(ctx)
            exchange.answered(result)
            return result

    return wrapper


def silenced(tracer: Tracer, switch: Switch) -> Tracer:
    """2.x: the tracer of the package's own spans, which then leaves the current span as it is."""
    return NoOpTracer()


@contextmanager
def _serving(responder: Any, session: Any) -> Iterator[None]:
    headers = _headers(getattr(responder.message_metadata, "request_context", None))
    version = _header(headers, "mcp-protocol-version") or _versions.get(session)
    if version is None and (given := getattr(session, "client_params", None)) is not None:
        version = given.protocolVersion
    message = _told(responder.request, session=_header(headers, "mcp-session-id"), version=version)
    with serving(message, headers) as exchange:
        _exchanges[responder] = exchange
        try:
            yield
        finally:
            unanswered = _exchanges.pop(responder, None)
        if unanswered is not None:  # the package has kept a cancellation to itself
            exchange.cancelled()


def _idle(switch: Switch) -> bool:
    return not switch.on or off()


def _told(request: Any, *, session: str | None = None, version: str | None = None) -> Message:
    """A request of 1.x as what it is on the wire."""
    asked = getattr(request, "root", request)
    found = asked.params
    params = {key: value for key in _FIELDS if (value := getattr(found, key, None)) is not None}
    if (meta := getattr(found, "meta", None)) is not None:
        params["_meta"] = dict(meta.model_extra or {})
    return Message(asked.method, params, session, version)


def _carrying(request: Any, carried: Mapping[str, str]) -> Any:
    """The same request of 1.x with more in its `_meta`; the caller's own is not touched."""
    asked = getattr(request, "root", request)
    params = asked.params
    if params is None and (field := type(asked).model_fields.get("params")) is not None:
        kinds = (each for each in get_args(field.annotation) if hasattr(each, "model_fields"))
        params = next((kind() for kind in kinds if not any(f.is_required() for f in kind.model_fields.values())), None)
    if not carried or "meta" not in getattr(type(params), "model_fields", {}):
        return request
    before = {} if params.meta is None else params.meta.model_dump(exclude_unset=True)
    meta = import_module("mcp.types").RequestParams.Meta.model_validate({**before, **carried})
    asked = asked.model_copy(update={"params": params.model_copy(update={"meta": meta})})
    return request.model_copy(update={"root": asked}) if hasattr(request, "root") else asked


def _agreed(session: Any, exchange: Exchange, version: object) -> None:
    """Remembers which version of the protocol the two sides have agreed on."""
    if exchange.message.method == "initialize" and isinstance(version, str):
        _versions[session] = version
        exchange.open.set({names.MCP_VERSION: version})


def _headers(http: Any) -> Mapping[str, str] | None:
    """The headers of the HTTP request that brought a request, if one has."""
    found = getattr(http, "headers", None)
    return found if isinstance(found, Mapping) else None


def _header(headers: Mapping[str, str] | None, name: str) -> str | None:
    return None if headers is None else headers.get(name)


def _owner(place: str) -> Any:
    """A class or a module of the package by its place; something empty if there is none."""
    module, _, name = place.partition(":")
    with suppress(ImportError, AttributeError):
        found = import_module(module)
        return getattr(found, name) if name else found
    return _Nothing


class _Nothing:
    """Where a hook finds no place."""


_FIELDS = ("name", "uri", "arguments")
_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
_versions: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
_exchanges: WeakKeyDictionary[Any, Exchange] = WeakKeyDictionary()

_FIRST: tuple[Hook, ...] = (
    ("mcp.shared.session:BaseSession", "send_request", traced_request),
    ("mcp.shared.session:RequestResponder", "respond", traced_response),
    ("mcp.server.lowlevel.server:Server", "_handle_request", traced_handler),
    ("mcp.server.session:ServerSession", "_received_request", traced_beginning),
    ("mcp.client.session:ClientSession", "_received_request", traced_received),
)
_SECOND: tuple[Hook, ...] = (
    ("mcp.shared.jsonrpc_dispatcher:JSONRPCDispatcher", "send_raw_request", traced_raw),
    ("mcp.shared.direct_dispatcher:DirectDispatcher", "send_raw_request", traced_raw),
    ("mcp.server._otel:OpenTelemetryMiddleware", "__call__", traced_middleware),
    ("mcp.client.session:ClientSession", "_on_request", traced_asked),
    ("mcp.shared._otel", "_tracer", silenced),
)
