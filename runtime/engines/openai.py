"""Any server that speaks OpenAI's chat completions, as an engine: messages go in, text comes out.

It is the least that an engine can be: no token ids, no holds, no forks, no grammar of ours. Calls come back as text of
the Hermes dialect, so that parsing, validation and streaming are those of every engine.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, get_args

import httpx

from ..errors import EngineFailed, Unable
from . import Capabilities, Job, Said
from .openai_request import Field, write_body
from .openai_stream import Events, Reading, told

LONGEST_EVENT = 16_000_000
"""Characters of one event; the far end is not trusted."""

_ADVICE = {
    400: "it does not take this request: extra_body can change fields, and takes one out that is None",
    401: "give the api_key that it expects",
    403: "give an api_key that may use this model",
    404: "look whether base_url is right (most end in /v1) and whether it serves this model",
    413: "the conversation is too long for it: shorten it",
    422: "it does not take this request: extra_body can change fields, and takes one out that is None",
    429: "it is asked too much or the account is used up: lower `concurrent`, or ask it later",
    503: "it is not ready, or overloaded: ask it later",
}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for, in seconds."""

    connect: float = 10.0
    silence: float = 600.0
    """Without a byte; a long prompt takes its time before the first."""
    retries: int = 3
    """So often a request is sent again that the server asks to have later (429 or 503 with Retry-After)."""
    longest: float = 60.0
    """The longest Retry-After that is waited for."""


PATIENCE = Patience()


class OpenAIEngine:
    """An OpenAI-compatible server on the turn clock.

    `model` None is the first one that the server lists: `name` and `fingerprint` know it after `probe`, or after the
    first answer. `knows` names what this server takes beyond the common fields; `extra_body` is merged into every
    request, and None in it takes a field out. A proxy or certificates of one's own come as an httpx `transport`: the
    environment is not looked at. The key is never shown. Raises ValueError for what can never work.
    """

    can = Capabilities(cached=True)
    page = 1

    def __init__(
        self,
        base_url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        concurrent: int = 16,
        longest: int = 1_000_000,
        knows: Collection[Field] = (),
        extra_body: Mapping[str, Any] | None = None,
        patience: Patience = PATIENCE,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if unknown := set(knows) - set(get_args(Field)):
            raise ValueError(f"knows: found {sorted(unknown)}; expected some of {sorted(get_args(Field))}")
        if concurrent < 1:
            raise ValueError(f"concurrent: found {concurrent}; expected at least 1")
        self.room = concurrent
        self.longest = longest
        self._url = _checked(base_url)
        self._key = _secret(api_key)
        self._model = model
        self._knows = frozenset(knows)
        self._extra: dict[str, Any] = json.loads(json.dumps(dict(extra_body or {})))
        self._patience = patience
        self._counts = True
        self._client = httpx.AsyncClient(
            transport=transport,
            timeout=httpx.Timeout(patience.silence, connect=patience.connect, pool=None),
            # The kernel admits no more than `room`: a limit of the client's own could only make a turn wait twice.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=concurrent),
            trust_env=False,
        )

    @property
    def name(self) -> str:
        return self._model or "unknown"

    @property
    def fingerprint(self) -> str:
        return f"{self._url} {self.name}"

    def __repr__(self) -> str:
        return f"<OpenAIEngine {self.name} at {self._url}>"

    async def probe(self) -> tuple[str, ...]:
        """The models that the server lists; the first becomes ours where none was given.

        May be awaited in any event loop, as it keeps no connection. Raises EngineFailed.
        """
        names: tuple[str, ...] = ()
        try:
            async with self._ask("GET", "models", headers={"Connection": "close"}) as response:
                names = self._names(await self._whole(response))
        except httpx.RequestError as fault:
            raise self._lost(fault) from fault
        self._model = self._model or names[0]
        return names

    async def say(self, job: Job) -> AsyncGenerator[Said, None]:
        """The answer as it comes; the last has an `end`, and the usage if the server tells. No token has an id.

        Raises EngineFailed when the server cannot be reached, refuses, breaks off or sends what cannot be read;
        BadMessage for what cannot be asked; Unable for a turn without messages.
        """
        body = await self._body(job)
        reading = Reading(self._failed, calls=job.ask is not None and job.ask.choice.mode != "none")
        try:
            async with (
                self._ask("POST", "chat/completions", body=body, headers=job.trace) as response,
                aclosing(self._events(response)) as events,
            ):
                async for data in events:
                    if text := reading.take(data):
                        yield Said(job.turn, 0, text=text, logprob=reading.logprob)
                    if reading.over:
                        break
        except httpx.RequestError as fault:
            if reading.end is None:
                raise self._lost(fault) from fault
        if reading.end is None:
            raise self._failed("it ended its answer in the middle: look into its log")
        yield Said(job.turn, 0, text=reading.close(), end=reading.end, usage=reading.usage)

    async def hold(self, key: str, seconds: float) -> None:
        """Raises Unable: such a server keeps what it likes."""
        raise self._unable("hold a context")

    async def release(self, key: str) -> None:
        """Raises Unable."""
        raise self._unable("release a context")

    async def aclose(self) -> None:
        """Close the connections. Closing twice is harmless."""
        await self._client.aclose()

    async def _body(self, job: Job) -> dict[str, Any]:
        if job.ask is None:
            raise self._unable("go on from token ids: it takes messages, so give the turn its Ask")
        if job.forced is not None:
            raise self._unable("say a recorded answer")
        if self._model is None:
            await self.probe()
        body = write_body(job, job.ask, model=self.name, knows=self._knows)
        if job.ask.sampling.max_tokens >= self.longest:  # as much as there is room for: the server knows how much
            for limit in ("max_tokens", "max_completion_tokens"):
                body.pop(limit, None)
        if not self._counts:
            del body["stream_options"]
        return {key: value for key, value in {**body, **self._extra}.items() if value is not None}

    @asynccontextmanager
    async def _ask(
        self, method: str, path: str, *, headers: Mapping[str, str], body: dict[str, Any] | None = None
    ) -> AsyncIterator[httpx.Response]:
        """A response that says yes. Asks again where the server wants it, and without usage where it knows none."""
        keyed = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        left = self._patience.retries
        while True:
            async with self._client.stream(
                method, f"{self._url}/{path}", json=body, headers={**headers, **keyed}
            ) as response:
                if response.is_success:
                    yield response
                    return
                said = await self._told(response)
            if body is not None and "stream_options" in body and _uncounted(response.status_code, said):
                self._counts = False
                del body["stream_options"]
                continue
            delay = _delay(response)
            if delay is None or delay > self._patience.longest or not left:
                raise self._refused(response, path, said)
            left -= 1
            await asyncio.sleep(delay)

    async def _events(self, response: httpx.Response) -> AsyncGenerator[str, None]:
        """The events of a stream; of a server that does not stream, its one answer."""
        kind = response.headers.get("content-type", "")
        if "html" in kind:
            raise self._failed(f"it answered with a page; {_ADVICE[404]}", kind)
        if "json" in kind and "event-stream" not in kind:
            yield await self._whole(response)
            return
        events = Events()
        async for data in response.aiter_bytes():
            for event in events.feed(data):
                yield event
            if events.held > LONGEST_EVENT:
                raise self._failed(f"it sent more than {LONGEST_EVENT} characters without an end of the event")

    async def _whole(self, response: httpx.Response) -> str:
        read = bytearray()
        async for data in response.aiter_bytes():
            read += data
            if len(read) > LONGEST_EVENT:
                raise self._failed(f"it answered with more than {LONGEST_EVENT} bytes")
        return read.decode("utf-8", "replace")

    async def _told(self, response: httpx.Response) -> str:
        """What a server says to its refusal, if it can be read."""
        try:
            said = await self._whole(response)
        except httpx.RequestError:
            return ""
        try:
            return told(json.loads(said))
        except (ValueError, RecursionError):
            return said

    def _names(self, listed: str) -> tuple[str, ...]:
        try:
            match json.loads(listed):
                case {"data": [{"id": str()}, *_] as models}:
                    return tuple(str(model["id"]) for model in models)
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise self._failed("its list of models cannot be read or is empty: say which `model` is meant")

    def _refused(self, response: httpx.Response, path: str, said: str) -> EngineFailed:
        status = response.status_code
        advice = _ADVICE.get(status, "look into its log" if status >= 500 else "see what it says")
        if response.has_redirect_location:
            advice = f"it sends to {response.headers['location']}, which base_url should name"
        if (delay := _delay(response)) is not None:
            patience = f"up to {self._patience.retries} times, for at most {self._patience.longest:g} s each"
            advice += f"; it wants to be asked again in {delay:g} s, and we wait {patience}"
        return self._failed(f"it answered /{path} with {status}; {advice}", said or response.reason_phrase)

    def _lost(self, fault: httpx.RequestError) -> EngineFailed:
        match fault:
            case httpx.ConnectError() | httpx.ConnectTimeout():
                what = "it cannot be reached; is it running, and is base_url right?"
            case httpx.ReadTimeout():
                what = f"it said nothing for {self._patience.silence:g} s; is it alive, or does it need longer?"
            case _:
                what = "the connection broke; look into its log"
        return self._failed(f"{what} ({type(fault).__name__}: {fault})")

    def _failed(self, what: str, said: str = "") -> EngineFailed:
        """The error that says who failed, and in which words. A server may repeat the key, we never do."""
        text = self._veiled(f"the server {self._url}: {what}")
        return EngineFailed(f"{text} (it said: {_short(self._veiled(said))})" if said else text)

    def _veiled(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text

    def _unable(self, what: str) -> Unable:
        return Unable(f"{self!r} cannot {what}; the embedded engine and vLLM can do more")


def _checked(base_url: str) -> str:
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, TypeError):
        url = httpx.URL("")
    if url.userinfo or url.query or url.fragment:
        raise ValueError("base_url: found a user, a query or a fragment in it; a key belongs into api_key")
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("base_url: found no scheme or no host in it; expected a URL such as http://127.0.0.1:8000/v1")
    return str(url).rstrip("/")


def _secret(api_key: str | None) -> str:
    key = api_key or ""
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("api_key: found a blank or a sign that is not ASCII in it (not shown); expected the bare key")
    return key


def _uncounted(status: int, said: str) -> bool:
    """Whether a server refuses a request because it knows no `stream_options`."""
    return status in (400, 422) and ("stream_options" in said or "include_usage" in said)


def _delay(response: httpx.Response) -> float | None:
    """Seconds after which a server wants to be asked again, if it says so; dates would need a clock."""
    if response.status_code not in (429, 503):
        return None
    for header, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(response.headers[header]) / unit
        except (KeyError, ValueError):
            continue
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    return None


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 600 else flat[:600] + " ..."
