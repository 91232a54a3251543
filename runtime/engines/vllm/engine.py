"""vLLM as an engine on the turn clock: token ids in, token ids out, leases on what a paused agent leaves."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any
from uuid import uuid4

import httpx

from ...detokenize import Detokenizer
from ...errors import EngineFailed
from .. import Capabilities, Job, Said
from .completions import STOPS, Event, Token, body, measured, read
from .server import TIMEOUT, Server, fault
from .tokens import Vocabulary
from .wishes import LONGEST_KEY, PATH

LEASE_S = 2.0
"""What a turn that may pause leaves is kept for so long, until somebody has read its calls and asks for more."""
SILENCE = 600.0
"""Seconds without a byte after which a server is taken for dead; a long prompt takes its time."""
KEPT_ALIVE = 3.0
"""Seconds; shorter than the server's, so that no request goes out on a connection it is just closing."""
AGAIN = (0.02, 0.05, 0.1, 0.2)
"""Pauses before a hold is asked for again: a turn that a stop string ended is over for us before it is for vLLM."""
POOL = 8
"""Longest contexts in the pool, where the server does not say how large it is."""


class VllmEngine:
    """A vLLM server. `server` says what was found there; `answers` counts what became of holds and releases."""

    def __init__(self, server: Server, vocabulary: Vocabulary, client: httpx.AsyncClient) -> None:
        self.server = server
        self.answers: Counter[tuple[str, str]] = Counter()
        self.can = Capabilities(
            tokens=True,
            cached=server.counted,
            hold=server.leases and server.caching,
            fork=server.caching,
            mask=server.grammar,
            logprobs=True,
        )
        self._vocabulary = vocabulary
        self._client = client
        self._own = uuid4().hex[:8]
        """Another process may serve a program of the same name from the same server."""
        self._held: set[str] = set()
        self._order: asyncio.Lock | None = None

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        model: str | None = None,
        tokenizer: str | None = None,
        api_key: str | None = None,
        transport: httpx.MockTransport | None = None,
    ) -> VllmEngine:
        """Look at a running server: what it serves, and what it can.

        `model` None is the first it lists; `tokenizer`, a directory or hub id, is for a server whose model is not
        found under the name it gives. The environment's proxies are not used. Raises EngineFailed where nobody
        answers, Unable for what is no vLLM, ModelNotFound where there is no tokenizer.
        """
        address = url.rstrip("/").removesuffix("/v1")
        shared: dict[str, Any] = {
            "base_url": address,
            "headers": {"authorization": f"Bearer {api_key}"} if api_key else {},
            "trust_env": False,
            "transport": transport,
        }
        with httpx.Client(timeout=TIMEOUT, **shared) as client:
            server = Server.look(client, address, model=model)
        vocabulary = Vocabulary.load(tokenizer or server.root)
        limits = httpx.Limits(max_connections=None, keepalive_expiry=KEPT_ALIVE)
        timeout = httpx.Timeout(SILENCE, connect=TIMEOUT.connect)
        return cls(server, vocabulary, httpx.AsyncClient(timeout=timeout, limits=limits, **shared))

    @property
    def name(self) -> str:
        return PurePath(self.server.root).name

    @property
    def fingerprint(self) -> str:
        return f"{self.server.url} {self.server.model} {self.server.root} vllm {self.server.version}"

    @property
    def page(self) -> int:
        return self.server.block or 16

    @property
    def room(self) -> int:
        return self.server.blocks or POOL * self.server.longest // self.page

    @property
    def longest(self) -> int:
        return self.server.longest

    @property
    def eos(self) -> tuple[int, ...]:
        return self._vocabulary.eos

    @property
    def vocab(self) -> int:
        return self._vocabulary.size

    @property
    def tokenizer(self) -> Any:
        return self._vocabulary.tokenizer

    def __repr__(self) -> str:
        can = ", ".join(name for name in Capabilities.__slots__ if getattr(self.can, name))
        return f"<VllmEngine {self.server.model} at {self.server.url}: {can}>"

    async def say(self, job: Job) -> AsyncIterator[Said]:
        """See TurnEngine. The server ends the answer, unless it has more stop strings than it takes; its text is
        made here, from its tokens."""
        speech = _Speech(job, self.tokenizer, self.eos)
        wanted = body(job, self.server, self.eos, self._lease(job))
        if job.key and self.server.takes("session_id"):
            wanted["session_id"] = self._key(job.key)
        try:
            trace = {name: value for name, value in job.trace.items() if name in ("traceparent", "tracestate")}
            request = self._client.stream("POST", "/v1/completions", json=wanted, headers=trace)
            async with request as response:
                if response.status_code != 200:
                    await response.aread()
                    raise EngineFailed(f"{self.server.url} refused the turn: {fault(response)}")
                async for line in response.aiter_lines():
                    event = read(line, self.server.url)
                    heard = speech.hear(event) if event is not None else ()
                    if speech.count > (most := wanted["max_tokens"]):
                        raise EngineFailed(f"{self.server.url} says more than the {most} tokens it was asked for")
                    for said in heard:
                        yield said
                    if speech.cut:
                        break
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise EngineFailed(f"{self.server.url} broke off after {speech.count} tokens: {reason}") from error
        last = speech.last
        if last is None:
            raise EngineFailed(f"{self.server.url} ended the stream after {speech.count} tokens without an end")
        yield last

    async def hold(self, key: str, seconds: float) -> None:
        """See TurnEngine. Raises EngineFailed when nothing is held, with the reason."""
        session = self._key(key)
        action = {"session": session, "verb": "hold", "seconds": max(0.0, seconds)}
        for pause in (*AGAIN, None):
            answer = await self._act(action)
            if answer["answer"] != "missing" or pause is None:
                break
            await asyncio.sleep(pause)
        self.answers["hold", answer["answer"]] += 1
        if answer["answer"] not in ("accepted", "clipped"):
            raise EngineFailed(f"{self.server.url} does not hold {key}: {answer.get('why')}")
        self._held.add(session)

    async def release(self, key: str) -> None:
        """See TurnEngine."""
        session = self._key(key)
        answer = await self._act({"session": session, "verb": "release"})
        self.answers["release", answer["answer"]] += 1
        self._held.discard(session)

    async def aclose(self) -> None:
        """Let go what is held and close the connections. A server that is gone holds nothing."""
        actions = [{"session": session, "verb": "close"} for session in sorted(self._held)]
        self._held.clear()
        try:
            if actions:
                await self._client.post(PATH, json=actions, timeout=TIMEOUT.connect)
        except httpx.HTTPError:
            pass
        finally:
            await self._client.aclose()

    async def _act(self, action: Mapping[str, Any]) -> dict[str, Any]:
        if self._order is None:
            self._order = asyncio.Lock()  # belongs to the loop that runs now
        try:
            async with self._order:  # what is asked first must arrive first
                response = await self._client.post(PATH, json=[action], timeout=TIMEOUT)
            if response.status_code != 200:
                raise EngineFailed(f"{self.server.url} does not change leases: {fault(response)}")
            answer: dict[str, Any] = response.json()["answers"][0]
        except (httpx.HTTPError, ValueError, LookupError) as error:
            raise EngineFailed(f"{self.server.url} does not change leases: {error!r}") from error
        return answer

    def _lease(self, job: Job) -> dict[str, Any] | None:
        """A turn after which nobody can come back asks for none."""
        pauses = job.ask is None or (bool(job.ask.tools) and job.ask.returns)
        if not self.can.hold or not job.key or not pauses:
            return None
        return {"session": self._key(job.key), "lease_s": LEASE_S}

    def _key(self, key: str) -> str:
        whole = f"{self._own}:{key}"
        return whole if len(whole) <= LONGEST_KEY else f"{self._own}:{hashlib.sha256(key.encode()).hexdigest()}"


class _Speech:
    """One answer: from the server's events to what was said."""

    def __init__(self, job: Job, tokenizer: Any, eos: tuple[int, ...]) -> None:
        self.count = 0
        self.last: Said | None = None
        """What has the end in it. It waits for what the server counted, which comes behind."""
        self._job = job
        self._eos = eos
        self._out = Detokenizer(tokenizer, job.sampling.stop)
        self._stopped = False

    @property
    def cut(self) -> bool:
        """A stop string has come of which the server does not know: nobody wants more."""
        return self._stopped and len(self._job.sampling.stop) > STOPS

    def hear(self, event: Event) -> list[Said]:
        """What is said with an event, but for the last of the answer."""
        said = []
        for token in event.tokens:
            said.append(self._spell(token))
            if self.cut:
                event = Event(end="stop")
                break
        if event.end is not None:
            last = said.pop() if said else Said(self._job.turn, 0)
            rest = "" if self._stopped else self._out.finish()
            self.last = replace(last, text=last.text + rest, end=event.end)
        if event.usage is not None and self.last is not None:
            self.last = replace(self.last, usage=event.usage)
        return said

    def _spell(self, token: Token) -> Said:
        self.count += 1
        text = ""
        if token.id not in self._eos and not self._stopped:
            text, self._stopped = self._out.feed(token.id)
        logprob, drawn, tempered = measured(self._job, token)
        wanted = self._job.sampling.logprobs or 0
        top = token.top[:wanted]
        return Said(self._job.turn, 0, token.id, text, logprob, drawn, tempered, top=top)
