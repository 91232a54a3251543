"""The routes of the server, and what they share."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from time import time
from typing import Any, cast
from uuid import uuid4

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ...tools import loads
from ..engines import Speaker
from ..errors import BadRequest, Unable
from ..host import Host
from .http_answer import Form, Part, Spelling, Stamp
from .http_chat import ChatForm, read_chat
from .http_completions import CompletionForm, read_completion
from .http_errors import FAULTS, Fault, TurnedAway, fault_of, noted
from .http_fields import Fields
from .http_messages import Memory, Said
from .http_metrics import Counted, Metrics
from .http_turns import ClientGone, Turns
from .http_wanted import Caller, Wanted, check_session, program_of, read_caller
from .http_wire import LONGEST_BODY, Events, read_body

MOST_TURNS = 1024
"""Turns that wait or run at once; who comes then is asked to come again."""
GONE = 499
"""The status of a request whose client left, in the metrics: as nginx has it."""


def read_keys(keys: Mapping[str, str] | None) -> dict[str, str] | None:
    """Tenants by a digest of their key, so that looking one up tells nothing of it by the time it takes.

    Raises ValueError for an empty key or tenant, and for a tenant with a slash, which parts it from its sessions.
    """
    if keys is None:
        return None
    for key, tenant in keys.items():
        if not key.strip() or not tenant or "/" in tenant:
            raise ValueError(
                f"keys: found a key for the tenant {tenant!r}; neither may be empty, no tenant have a slash"
            )
    return {_digest(key): tenant for key, tenant in keys.items()}


class Door:
    """The routes, and what they share."""

    def __init__(self, host: Host, tenants: Mapping[str, str] | None, name: str, most: int) -> None:
        self._host = host
        self._tenants = tenants
        self._name = name
        self._most = most
        self._memory = Memory()
        self._metrics = Metrics()
        self._speaker = cast(Speaker, host.engine) if host.can.tokens else None
        speaker = self._speaker
        self._spelling = Spelling(speaker.tokenizer, speaker.eos) if speaker else Spelling(None, ())
        self._since = int(time())
        self._flying = 0

    def app(self) -> Starlette:
        routes = [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/v1/sessions/{name:path}", self.release, methods=["DELETE"]),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
        ]
        counted = Middleware(Counted, metrics=self._metrics)
        known = dict.fromkeys((*FAULTS, HTTPException, Exception), _refused)
        return Starlette(routes=routes, middleware=[counted], exception_handlers=cast(Any, known))

    async def chat(self, request: Request) -> Response:
        caller, fields = await self._read(request)
        wanted = read_chat(fields, caller, memory=self._memory, longest=self._host.engine.longest)
        form = ChatForm(self._stamp("chatcmpl"), wanted, self._spelling)

        def remember(part: Part) -> None:
            self._remember(wanted, form, part)

        return await self._answer(request, wanted, form, remember)

    async def completions(self, request: Request) -> Response:
        caller, fields = await self._read(request)
        if self._speaker is None:
            raise Unable(f"{self._host.engine.name} takes messages only: use /v1/chat/completions")
        speaker = self._speaker
        # In a thread: spelling a long prompt takes time, and others are served meanwhile.
        wanted = await asyncio.to_thread(
            read_completion, fields, caller, encode=speaker.tokenizer.encode, vocab=speaker.vocab
        )
        form = CompletionForm(self._stamp("cmpl"), wanted, self._spelling)
        return await self._answer(request, wanted, form, lambda part: None)

    async def models(self, request: Request) -> Response:
        self._tenant(request)
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def model(self, request: Request) -> Response:
        self._tenant(request)
        self._check_model(request.path_params["name"])
        return JSONResponse(self._card())

    async def release(self, request: Request) -> Response:
        """A session is over: what it holds is let go, and what of it still runs is ended."""
        tenant, session = self._tenant(request), check_session(request.path_params["name"])
        if not session:
            raise BadRequest("session_id", session, "the session's name behind /v1/sessions/")
        self._host.finish(program_of(tenant, session))
        return JSONResponse({"id": session, "object": "session", "deleted": True})

    async def health(self, request: Request) -> Response:
        """Whether the schedule's own thread answers, and its books are in order."""
        await asyncio.to_thread(self._host.loop.ask)
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        body, kind = self._metrics.page(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": kind})

    async def _read(self, request: Request) -> tuple[Caller, Fields]:
        tenant = self._tenant(request)
        fields = Fields(loads(await read_body(request), limit=LONGEST_BODY))
        self._check_model(fields.text("model", "default"))
        return read_caller(fields, tenant, request.headers.get("x-session-id")), fields

    async def _answer(self, request: Request, wanted: Wanted, form: Form, note: Callable[[Part], None]) -> Response:
        if wanted.logprobs and not self._host.can.logprobs:
            raise Unable(f"{self._host.engine.name} does not tell how likely its tokens were: leave logprobs out")
        if len(wanted.questions) > self._most:
            raise BadRequest("n", len(wanted.questions), f"at most {self._most} answers to a request")
        if self._flying + len(wanted.questions) > self._most:
            raise TurnedAway(429, "busy", f"{self._flying} turns are on their way already: come again soon")
        parts = self._parts(request, wanted, note)
        headers = {"x-request-id": str(uuid4())}
        if wanted.stream:
            # The first part decides: what goes wrong before it has a status of its own.
            return Events(form, await anext(parts), parts, headers)
        async with aclosing(parts):
            async for part in parts:
                form.take(part)
        return JSONResponse(form.whole(), headers=headers)

    async def _parts(self, request: Request, wanted: Wanted, note: Callable[[Part], None]) -> AsyncGenerator[Part]:
        """The parts of the answers, counted, and what must be done at the end."""
        count = len(wanted.questions)
        self._flying += count
        self._metrics.begun(count)
        try:
            async with aclosing(Turns(self._host, wanted, dict(request.headers)).parts(request.receive)) as parts:
                async for part in parts:
                    yield part
                    if part.answer is not None:
                        note(part)
        finally:
            self._flying -= count
            self._metrics.over(count)
            if wanted.close:
                self._host.finish(wanted.questions[0].ask.program)

    def _remember(self, wanted: Wanted, form: ChatForm, part: Part) -> None:
        """Keep the ids of an answer for when it comes back; not if a stop string was cut from what they say."""
        answer, ask = part.answer, wanted.questions[part.choice].ask
        if answer is None or self._speaker is None or not answer.tokens:
            return
        if answer.reason != "stop" or answer.tokens[-1] in self._speaker.eos:
            said = Said(answer.tokens, ask.program, ask.branch)
            self._memory.keep(wanted.caller.tenant, wanted.caller.session, form.message(part.choice), said)

    def _tenant(self, request: Request) -> str:
        if self._tenants is None:
            return "default"
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        tenant = self._tenants.get(_digest(key.strip())) if scheme.lower() == "bearer" else None
        if tenant is None:
            found = "an API key that is not known" if key else "no API key"
            wanted = "send one that is, as 'Authorization: Bearer KEY'"
            raise TurnedAway(401, "invalid_api_key", f"found {found}: {wanted}", kind="authentication_error")
        return tenant

    def _check_model(self, name: str) -> None:
        if name not in (self._name, "default"):
            raise TurnedAway(404, "model_not_found", f"there is no model {name[:140]!r}: ask for {self._name!r}")

    def _card(self) -> dict[str, Any]:
        longest = self._host.engine.longest
        return {
            "id": self._name,
            "object": "model",
            "created": self._since,
            "owned_by": "sostenuto",
            "max_model_len": longest,
        }

    def _stamp(self, prefix: str) -> Stamp:
        weights = f"{self._host.engine.fingerprint} {self._host.loop.weights}"
        fingerprint = f"fp_{_digest(weights)[:12]}"
        return Stamp(f"{prefix}-{uuid4().hex}", int(time()), self._name, fingerprint, self._host.can.cached)


async def _refused(request: Request, error: Exception) -> Response:
    """Any error in OpenAI's form."""
    if isinstance(error, ClientGone):
        return Response(status_code=GONE)  # to nobody
    if isinstance(error, HTTPException):
        fault = Fault(error.status_code, f"{error.detail}: {request.method} {request.url.path}")
    else:
        fault = fault_of(error)
    noted(error, fault)
    return JSONResponse(fault.json(), status_code=fault.status, headers=fault.headers)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
