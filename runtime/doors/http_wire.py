"""What comes over the wire and what goes: a body of JSON, server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .http_answer import Form, Part
from .http_errors import FAULTS, TurnedAway, fault_of, noted
from .http_turns import ClientGone

LONGEST_BODY = 8 * 2**20
"""Bytes of a request at most."""


async def read_body(request: Request) -> str:
    """The body as text. Only JSON is taken: a form is what any web page can send here unasked."""
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise TurnedAway(415, "not_json", f"found content of type {kind!r}; expected application/json")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > LONGEST_BODY:
                raise TurnedAway(413, "too_large", f"the body has more than {LONGEST_BODY} bytes: send less")
        return body.decode()
    except ClientDisconnect as error:
        raise ClientGone("the client left before it had said all") from error
    except UnicodeDecodeError as error:
        raise TurnedAway(400, "not_json", f"the body is not UTF-8: {error}") from error


class Events(Response):
    """An answer as server-sent events. What goes wrong after its beginning is the last event."""

    media_type = "text/event-stream"

    def __init__(self, form: Form, first: Part, parts: AsyncGenerator[Part], headers: dict[str, str]) -> None:
        super().__init__(headers={**headers, "cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._form = form
        self._first = first
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._parts) as parts:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                await self._tell(send, [*self._form.begin(), *self._form.take(self._first)])
                async for part in parts:
                    await self._tell(send, self._form.take(part))
                await self._tell(send, [*self._form.end()])
                await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
            except ClientGone:
                return
            except FAULTS as error:
                fault = fault_of(error)
                noted(error, fault)
                await self._tell(send, [fault.json()])
                await send({"type": "http.response.body", "body": b""})

    async def _tell(self, send: Send, chunks: list[dict[str, Any]]) -> None:
        body = "".join(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n" for chunk in chunks)
        if body:
            await send({"type": "http.response.body", "body": body.encode(), "more_body": True})
