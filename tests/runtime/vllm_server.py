"""A stand-in for a vLLM server, behind a transport that needs no network."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from sostenuto.runtime.engines.vllm.engine import VllmEngine

from .conftest import EOS

CACHE = 'vllm:cache_config_info{block_size="32",enable_prefix_caching="%s",num_gpu_blocks="100",x="None"} 1.0\n'
FIELDS = ("prompt", "structured_outputs", "return_token_ids", "session_id", "cache_salt", "kv_transfer_params")


def event(text: str, *, end: str | None = None, ids: tuple[int, ...] | None = None) -> dict[str, Any]:
    """What vLLM streams for this text; a token is a byte."""
    tokens = list(text.encode()) if ids is None else list(ids)
    rates = {"token_logprobs": [-0.5] * len(tokens), "top_logprobs": [_top(token) for token in tokens]}
    choice = {"index": 0, "text": text, "token_ids": tokens, "logprobs": rates, "finish_reason": end}
    return {"object": "text_completion", "choices": [choice]}


def _top(token: int) -> dict[str, float]:
    return {f"token_id:{token}": -0.5, "token_id:65": -0.1, "token_id:66": -9999.0}


COUNTED = {
    "choices": [],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
}


@dataclass
class Server:
    """A stand-in for vLLM that says what it is told to say."""

    root: str
    events: list[Any] = field(default_factory=lambda: [event("hi"), event("", end="stop", ids=(EOS,)), COUNTED])
    status: int = 200
    plugin: bool = True
    fields: tuple[str, ...] = FIELDS
    counts: bool = True
    grammars: bool = True
    caching: str = "True"
    cut: bool = False
    answers: dict[str, list[str]] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    actions: list[dict[str, Any]] = field(default_factory=list)
    headers: list[httpx.Headers] = field(default_factory=list)
    open: int = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.headers.append(request.headers)
        routes: dict[str, Callable[[httpx.Request], httpx.Response]] = {
            "/v1/models": self._models,
            "/version": lambda _: httpx.Response(200, json={"version": "0.32.0"}),
            "/openapi.json": self._openapi,
            "/metrics": lambda _: httpx.Response(200, text="# HELP\n" + CACHE % self.caching),
            "/sostenuto/leases": self._leases,
            "/v1/completions": self._complete,
        }
        return routes[request.url.path](request)

    def connect(self, **more: Any) -> VllmEngine:
        return VllmEngine.connect("http://vllm:8000/v1/", transport=httpx.MockTransport(self), **more)

    def _models(self, request: httpx.Request) -> httpx.Response:
        card = {"id": "m", "root": self.root, "max_model_len": 2048}
        return httpx.Response(200, json={"data": [card]})

    def _openapi(self, request: httpx.Request) -> httpx.Response:
        schema: dict[str, Any] = {"properties": {field: {} for field in self.fields}}
        return httpx.Response(200, json={"components": {"schemas": {"CompletionRequest": schema}}})

    def _leases(self, request: httpx.Request) -> httpx.Response:
        if not self.plugin:
            return httpx.Response(404, json={"detail": "Not Found"})
        if request.method == "GET":
            return httpx.Response(200, json={"pool": {"block": 32, "blocks": 99}, "leases": []})
        actions = json.loads(request.content)
        self.actions += actions
        return httpx.Response(200, json={"answers": [self._answer(action) for action in actions]})

    def _answer(self, action: dict[str, Any]) -> dict[str, Any]:
        script = self.answers.get(action["verb"]) or ["accepted"]
        answer = script.pop(0) if len(script) > 1 else script[0]
        return {**action, "answer": answer, "why": "its time was over" if answer == "missing" else ""}

    def _complete(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if not body.get("stream"):
            if "structured_outputs" in body and not self.grammars:
                return httpx.Response(400, json={"error": {"message": "no such backend"}})
            details = {"prompt_tokens_details": {"cached_tokens": 0}} if self.counts else {}
            ids = {"token_ids": [1]} if "return_token_ids" in self.fields else {}
            return httpx.Response(200, json={"choices": [{"text": "x", **ids}], "usage": details})
        self.asked.append(body)
        if self.status != 200:
            return httpx.Response(self.status, json={"error": {"message": "too long for me"}})
        return httpx.Response(200, stream=Stream(self))


class Stream(httpx.AsyncByteStream):
    """An answer under way; open until it is closed."""

    def __init__(self, server: Server) -> None:
        self._server = server
        server.open += 1

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for each in self._server.events:
            yield f"data: {json.dumps(each)}\n\n".encode()
        if self._server.cut:
            raise httpx.ReadError("connection reset")
        yield b"data: [DONE]\n\n"

    async def aclose(self) -> None:
        self._server.open -= 1
