"""A real vLLM server on loopback, in its own environment: stock, but for our connector and our routes."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sostenuto.runtime.engines import Job, Said
from sostenuto.runtime.engines.vllm.command import command_line, environment
from sostenuto.runtime.engines.vllm.engine import VllmEngine
from sostenuto.runtime.sampling import Sampling
from sostenuto.scheduler import TurnId
from sostenuto.tests.runtime.conftest import EOS, VOCAB, spelling

ROOT = Path(__file__).parents[2]
STARTING = 240.0
"""Seconds; a busy machine takes most of a minute."""
ROOM = 99
"""Blocks of 32 tokens; one more stands for none."""
NUMBERS = random.Random(20261121)


@dataclass
class Server:
    """A server that runs, and what can be asked of it without our engine."""

    url: str
    process: subprocess.Popen[bytes]
    client: httpx.Client

    def kill(self) -> None:
        """End every process of it at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def complete(self, prompt: Sequence[int], tokens: int = 1, **more: Any) -> tuple[list[int], int, dict[str, Any]]:
        """(what was said, prompt tokens found in the cache, the answer of our connector)."""
        body = {"model": "tiny", "prompt": list(prompt), "max_tokens": tokens, "temperature": 0, **more}
        found = self.client.post("/v1/completions", json={**body, "ignore_eos": True, "return_token_ids": True})
        assert found.status_code == 200, found.text
        answer = found.json()
        cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        return answer["choices"][0]["token_ids"], cached, (answer.get("kv_transfer_params") or {}).get("sostenuto", {})

    def together(self, count: int, prompted: int, tokens: int) -> list[int]:
        """Requests that arrive at the same moment; how many tokens each said."""
        prompts = [prompt(prompted) for _ in range(count)]
        body = {"model": "tiny", "prompt": prompts, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        found = self.client.post("/v1/completions", json={**body, "return_token_ids": True})
        assert found.status_code == 200, found.text
        return [len(choice["token_ids"]) for choice in found.json()["choices"]]

    def lease(self, session: str, tokens: int, **wish: Any) -> dict[str, Any]:
        """A turn of the session that leaves so many tokens; the connector's answer."""
        wish = {"session": session, "lease_s": 60, **wish}
        return self.complete(prompt(tokens), kv_transfer_params={"sostenuto": wish})[2]

    def table(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get("/sostenuto/leases").json()
        return found

    def leases(self) -> dict[str, int]:
        """Blocks by session."""
        return {lease["session"]: lease["blocks"] for lease in self.table()["leases"]}

    def act(self, *actions: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.post("/sostenuto/leases", json=list(actions)).json()["answers"]
        return found

    def clear(self) -> None:
        """End every lease."""
        self.act(*({"session": session, "verb": "release"} for session in self.leases()))

    def churn(self) -> None:
        """Traffic of others, more than the pool holds."""
        for _ in range(4):
            self.complete(prompt(900), 8)

    def metric(self, name: str) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"vllm:{name}" + "{"))

    def running(self) -> int:
        """Requests that have not ended."""
        return int(self.metric("num_requests_running") + self.metric("num_requests_waiting"))

    def sessions(self) -> list[str]:
        """Who holds something; without the name of the engine that asked for it."""
        return [session.partition(":")[2] for session in self.leases()]

    def until(self, look: Callable[[], object], wanted: object) -> None:
        """Look until it is as wanted; the test's time limit ends it."""
        while look() != wanted:
            time.sleep(0.05)


def prompt(tokens: int) -> list[int]:
    """Bytes that nobody has said before."""
    return [NUMBERS.randrange(256) for _ in range(tokens)]


async def turn(engine: VllmEngine, tokens: Sequence[int], key: str = "", **more: Any) -> list[Said]:
    """A turn by our engine, to its end."""
    job = Job(TurnId("t"), list(tokens), len(tokens), more.pop("sampling", Sampling(max_tokens=8)), key=key, **more)
    return [said async for said in engine.say(job)]


def cached(said: Sequence[Said]) -> int:
    """Prompt tokens that the server found in its cache."""
    usage = said[-1].usage
    assert usage is not None
    assert usage.cached is not None
    return usage.cached


def interpreter() -> Path | None:
    """Python of vLLM's environment: SOSTENUTO_VLLM_PYTHON, or what `make` has built."""
    named = os.environ.get("SOSTENUTO_VLLM_PYTHON")
    path = Path(named) if named else ROOT / ".venv-vllm" / "bin" / "python"
    return path if path.is_file() else None


@contextmanager
def serving(model: Path, log: Path, *more: str) -> Iterator[Server]:
    """A server from its start to its end."""
    python = interpreter()
    if python is None:
        pytest.skip("there is no vLLM: run make test-vllm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # In bfloat16 vLLM's attention uses Intel's AMX, and with so tiny a model nobody asks the kernel's leave for it.
    flags = ["--served-model-name", "tiny", "--dtype", "float32", "--max-model-len", "2048", "--max-num-seqs", "8"]
    flags += ["--enforce-eager", "--block-size", "32", "--num-gpu-blocks-override", str(ROOM + 1), *more]
    command = command_line(str(model), port=port, more=flags)
    command[0] = str(python.parent / command[0])
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    variables = {**os.environ, **offline, **environment(cpus=min(2, os.cpu_count() or 1))}
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as out, httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        # A group of its own: where the front process dies, the others of a vLLM live on.
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=variables, cwd=log.parent, start_new_session=True
        )
        server = Server(url, process, client)
        try:
            _wait(process, client, log)
            yield server
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            server.kill()


def _wait(process: subprocess.Popen[bytes], client: httpx.Client, log: Path) -> None:
    end = time.monotonic() + STARTING
    while True:
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail(f"vLLM did not start:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.2)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(7)
    shape: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 32}
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096}
    config = LlamaConfig(vocab_size=VOCAB, initializer_range=0.3, **shape, **heads, bos_token_id=None, eos_token_id=EOS)
    untyped: Any = LlamaForCausalLM
    untyped(config).save_pretrained(folder)
    spelling().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def started(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tiny, tmp_path_factory.mktemp("server") / "log") as server:
        yield server


@pytest.fixture
def server(started: Server) -> Iterator[Server]:
    """The one server of all tests, with nothing held."""
    started.clear()
    yield started
    started.clear()


@pytest.fixture
async def engine(server: Server) -> AsyncIterator[VllmEngine]:
    opened = VllmEngine.connect(server.url)
    yield opened
    await opened.aclose()
