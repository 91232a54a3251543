"""A small OpenAI-compatible server on loopback that answers from a script, for tests of engines that talk to one."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

import httpx

from sostenuto.runtime.ask import Ask, Message
from sostenuto.runtime.engines import Job, Said
from sostenuto.runtime.engines.openai import OpenAIEngine
from sostenuto.runtime.sampling import Sampling
from sostenuto.scheduler import TurnId

ASK = Ask((Message("user", "hello"),))
Handler = Callable[[httpx.Request], httpx.Response]

Call = tuple[str, str]
"""A tool's name, and its arguments as the model wrote them."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it arrived; names of headers are in small letters."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answers, part by part."""

    parts: tuple[bytes, ...]
    status: int = 200
    kind: str = "text/event-stream"
    headers: Mapping[str, str] = field(default_factory=dict)
    then: Literal["end", "cut", "wait"] = "end"
    """After the parts: the end; the connection breaks; or the client is waited for, until it leaves."""


Script = Reply | Callable[[Asked], Reply]


def events(*chunks: Mapping[str, Any] | str) -> tuple[bytes, ...]:
    """Each as a server-sent event."""
    return tuple(
        f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk, ensure_ascii=False)}\n\n".encode()
        for chunk in chunks
    )


def chunk(delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
    """A chunk of a streaming completion."""
    choice = {"index": 0, "delta": dict(delta), "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "tiny", "choices": [choice]}


def call_chunk(index: int, name: str | None, arguments: str) -> dict[str, Any]:
    """A chunk with a piece of a call; the first of a call has the name."""
    function: dict[str, Any] = {"arguments": arguments}
    entry: dict[str, Any] = {"index": index, "function": function}
    if name is not None:
        entry |= {"id": f"theirs_{index}", "type": "function"}
        function["name"] = name
    return chunk({"tool_calls": [entry]})


def usage_chunk(prompt: int, cached: int, said: int) -> dict[str, Any]:
    """The chunk that tells what was counted."""
    counts = {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said}
    details = {"prompt_tokens_details": {"cached_tokens": cached}}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [], "usage": {**counts, **details}}


def answer(
    *texts: str,
    calls: Sequence[Call] = (),
    usage: tuple[int, int, int] | None = (12, 8, 5),
    finish: str | None = None,
    then: Literal["end", "cut", "wait"] = "end",
) -> Reply:
    """Texts, then calls whose arguments come in pieces, then the end; `usage` is prompt, cached, said.

    Unless it ends there is no more than the texts and calls.
    """
    chunks: list[Mapping[str, Any] | str] = [chunk({"role": "assistant", "content": ""})]
    chunks += [chunk({"content": text}) for text in texts]
    for index, (name, arguments) in enumerate(calls):
        chunks.append(call_chunk(index, name, ""))
        chunks += [call_chunk(index, None, arguments[at : at + 5]) for at in range(0, len(arguments), 5)]
    if then == "end":
        chunks.append(chunk({}, finish or ("tool_calls" if calls else "stop")))
        if usage is not None:
            chunks.append(usage_chunk(*usage))
        chunks.append("[DONE]")
    return Reply(events(*chunks), then=then)


def refusal(status: int, message: str, **headers: str) -> Reply:
    """An error as OpenAI tells it; in the names of headers, `_` is `-`."""
    told = json.dumps({"error": {"message": message, "type": "error", "code": None}}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply((told,), status, "application/json", named)


def job(ask: Ask | None = ASK, **rest: Any) -> Job:
    """A turn that asks this."""
    return Job(TurnId("t1"), [], 0, Sampling(), ask=ask, **rest)


async def told(engine: OpenAIEngine, ask: Ask = ASK) -> list[Said]:
    """All that an engine says to a question."""
    return [said async for said in engine.say(job(ask))]


def text(said: Sequence[Said]) -> str:
    """All of it as one text."""
    return "".join(one.text for one in said)


def mocked(handler: Handler, **rest: Any) -> OpenAIEngine:
    """An engine whose server is a function; nothing it opens need be closed."""
    return OpenAIEngine("http://there/v1", transport=httpx.MockTransport(handler), **{"model": "tiny", **rest})


def replying(*replies: Reply) -> tuple[Handler, list[dict[str, Any]]]:
    """A server as a function that gives these replies, the last one for ever; and the bodies it is sent."""
    left, bodies = list(replies), list[dict[str, Any]]()

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        reply = left.pop(0) if len(left) > 1 else left[0]
        headers = {"Content-Type": reply.kind, **reply.headers}
        return httpx.Response(reply.status, headers=headers, content=b"".join(reply.parts))

    return handler, bodies


class OpenAIServer:
    """Answers each request for a completion with the next of the script; use it in a `with`."""

    def __init__(self, *script: Script, models: Sequence[str] = ("tiny",)) -> None:
        self.asked: list[Asked] = []
        """The requests for completions, in order."""
        self._script: deque[Script] = deque(script)
        self._models = {"object": "list", "data": [{"id": name, "object": "model"} for name in models]}
        self._left = threading.Semaphore(0)
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="openai-server")

    @property
    def url(self) -> str:
        """The base URL, /v1 included."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def script(self, *replies: Script) -> None:
        """Answer with these too."""
        self._script.extend(replies)

    def left(self) -> None:
        """Wait until a client has left in the middle of an answer; fails when none does."""
        assert self._left.acquire(timeout=30), "no client has left"

    def __enter__(self) -> OpenAIServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()

    def _listed(self, path: str) -> Reply:
        if path != "/v1/models":
            return refusal(404, f"there is no {path}")
        return Reply((json.dumps(self._models).encode(),), kind="application/json")

    def _next(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        if asked.path != "/v1/chat/completions":
            return refusal(404, f"there is no {asked.path}")
        if not self._script:
            return refusal(500, "the script is over")
        reply = self._script.popleft()
        return reply if isinstance(reply, Reply) else reply(asked)


class _Server(ThreadingHTTPServer):
    """Knows its connections, to end them."""

    daemon_threads = False

    def __init__(self, *given: Any) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(*given)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        for connection in tuple(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # it is closed already
                continue


def _handler(server: OpenAIServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._send(server._listed(self.path))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self._send(server._next(Asked(self.path, headers, body)))

        def _send(self, reply: Reply) -> None:
            try:
                self._write(reply)
                if reply.then == "wait":
                    self.rfile.read(1)
                    server._left.release()
            except OSError:
                server._left.release()
                self.close_connection = True

        def _write(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in {"Content-Type": reply.kind, "Transfer-Encoding": "chunked", **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            for part in _framed(reply):
                self.wfile.write(part)
                self.wfile.flush()
            self.close_connection = self.close_connection or reply.then != "end"

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def _framed(reply: Reply) -> Iterator[bytes]:
    for part in reply.parts:
        yield b"%x\r\n%s\r\n" % (len(part), part)
    if reply.then == "end":
        yield b"0\r\n\r\n"
