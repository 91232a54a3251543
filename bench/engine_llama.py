"""llama.cpp in the benchmark of engines: the server inside xllamacpp's wheel, or one of your own build, on loopback.

It is asked over HTTP, which it always is; where it tells what it measured by its own clock, that is taken.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import httpx

from sostenuto.bench.engine_speaking import Heard, Single

HOST = "127.0.0.1"
STARTING = 300
"""Seconds after which it is taken not to start."""


class Llama(Single):
    """A server with as many slots as the largest batch, over one pool of keys and values in 16 bits."""

    def __init__(self, url: str, settings: dict[str, Any], server: Any) -> None:
        self._server = server  # a process, or what keeps the server inside this one alive
        limits = httpx.Limits(max_keepalive_connections=0)  # it closes kept connections when it likes
        self._client = httpx.AsyncClient(base_url=url, timeout=None, limits=limits, trust_env=False)
        self.versions = {} if settings.get("binary") else {"xllamacpp": version("xllamacpp")}
        self.settings = {name: settings[name] for name in ("pool_tokens", "slots")}

    async def ready(self) -> None:
        """Wait until it has loaded the model. TimeoutError if that does not come."""
        for _ in range(STARTING * 10):
            try:
                if (await self._client.get("/health")).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
        else:
            raise TimeoutError(f"llama.cpp did not start in {STARTING} s: see its log")
        found = (await self._client.get("/props")).json()
        if "unknown" not in (build := str(found.get("build_info", "unknown"))):
            self.versions["llama.cpp"] = build

    async def say(self, prompt: Sequence[int], count: int, *, session: str, pauses: bool) -> Heard:
        body = {"prompt": list(prompt), "n_predict": count, "temperature": 0, "ignore_eos": True, "stream": True}
        body |= {"cache_prompt": True, "return_tokens": True}
        heard = Heard()
        async with self._client.stream("POST", "/completion", json=body) as answer:
            if answer.status_code != 200:
                raise RuntimeError(f"llama.cpp answers {answer.status_code}: {(await answer.aread())[:300]!r}")
            async for line in answer.aiter_lines():
                if not line.startswith("data: "):
                    continue
                found = json.loads(line.removeprefix("data: "))
                if found.get("stop"):
                    _told(heard, found["timings"])
                else:
                    # Tokens inside a character are kept back and then told by their number alone.
                    heard.hear(found["tokens"], found["tokens_predicted"])
        heard.tokens += [heard.tokens[-1]] * (count - len(heard.tokens))
        return heard

    async def close(self) -> None:
        await self._client.aclose()
        if isinstance(self._server, subprocess.Popen):
            self._server.terminate()
            self._server.wait(30)


async def opened(settings: dict[str, Any]) -> Llama:
    """The packaged GGUF file as it is."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    server = _built(settings, port) if settings.get("binary") else _packaged(settings, port)
    found = Llama(f"http://{HOST}:{port}", settings, server)
    await found.ready()
    return found


def _told(heard: Heard, timings: dict[str, Any]) -> None:
    heard.cached = int(timings["cache_n"])
    heard.own["prompt_s"] = timings["prompt_ms"] / 1000
    if timings["predicted_n"] > 1:
        heard.own["decode_s"] = timings["predicted_ms"] / 1000


def _packaged(settings: dict[str, Any], port: int) -> Any:
    import xllamacpp  # only where this peer's environment is

    given = xllamacpp.CommonParams()
    given.model.path = settings["file"]
    given.n_parallel, given.n_ctx, given.kv_unified = settings["slots"], settings["pool_tokens"], True
    given.hostnames, given.port, given.n_threads_http = [HOST], port, settings["slots"] + 4
    given.cpuparams.n_threads = given.cpuparams_batch.n_threads = len(settings["cores"])
    given.verbosity = -1
    return xllamacpp.Server(given)


def _built(settings: dict[str, Any], port: int) -> Any:
    threads = str(len(settings["cores"]))
    command = [settings["binary"], "--model", settings["file"], "--host", HOST, "--port", str(port), "--kv-unified"]
    command += [
        "--parallel",
        str(settings["slots"]),
        "--threads-http",
        str(settings["slots"] + 4),
        "--ctx-size",
        str(settings["pool_tokens"]),
    ]
    return subprocess.Popen([*command, "--threads", threads, "--threads-batch", threads], stdin=subprocess.DEVNULL)
