"""Who is measured in the benchmark of engines: environments, settings, and the process of each.

Only one process works at a time: the others are stopped by a signal meanwhile, so that none can disturb by waiting.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from select import select
from time import perf_counter, sleep
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 3 * 3600.0
"""Seconds after which a measurement is taken to hang: agents on the slowest of peers take an hour."""
SLOTS = 16
BLOCK = 32


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """An engine, and how it is opened."""

    name: str
    module: str
    what: str
    venv: str = "VENV"
    """The environment variable that names its virtual environment."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        return self.module in (".engine_ours", ".engine_limits")


VLLM = {"block": BLOCK}
EXACT = Peer("exact", ".engine_ours", "ours, bfloat16, mode exact", settings={"mode": "exact"})
FAST = Peer("fast", ".engine_ours", "ours, mode fast: the file's 4 bits at few rows", settings={"mode": "fast"})
BOUND = Peer("vllm", ".engine_vllm", "vLLM, bfloat16, all cores bound", "VLLM_VENV", VLLM)
DEFAULT = Peer("vllm-default", ".engine_vllm", "vLLM, bfloat16, its default binding", "VLLM_VENV", VLLM)
LLAMA = Peer("llama.cpp", ".engine_llama", "llama.cpp, Q4_1, prebuilt for AVX2", "LLAMA_VENV", {"slots": SLOTS})
NATIVE = Peer(
    "llama.cpp-native", ".engine_llama", "llama.cpp, Q4_1, built here (LLAMA_SERVER)", "LLAMA_VENV", {"slots": SLOTS}
)
GENERATE = Peer("generate", ".engine_transformers", "transformers, bfloat16, generate", settings={"batching": False})
BATCHING = Peer(
    "batching", ".engine_transformers", "transformers, bfloat16, continuous batching", settings={"batching": True}
)
LIMITS = Peer("machine", ".engine_limits", "the machine, and our model's parts")
PEERS = (EXACT, FAST, BOUND, DEFAULT, LLAMA, NATIVE, GENERATE, BATCHING)
BY_NAME = {peer.name: peer for peer in (*PEERS, LIMITS)}
VENVS = {"VENV": ".venv", "VLLM_VENV": ".venv-vllm", "LLAMA_VENV": ".venv-llama"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where processes run, and on what."""

    cores: Sequence[int]
    model: str
    """The packaged model, converted to bfloat16."""
    file: str
    """The packaged model's GGUF file."""
    logs: Path

    def settings(self, peer: Peer, pool_tokens: int) -> dict[str, Any]:
        given = {"cores": list(self.cores), "pool_tokens": pool_tokens, "model": self.model, "file": self.file}
        given |= {"binary": os.environ["LLAMA_SERVER"]} if peer is NATIVE else {}
        return given | dict(peer.settings)

    def variables(self, peer: Peer, pool_tokens: int, cache: Path | None) -> dict[str, str]:
        """The environment: nobody else's settings, and no network."""
        strange = ("VLLM_", "OMP_", "KMP_", "MKL_", "LD_PRELOAD")
        found = {key: value for key, value in os.environ.items() if not key.startswith(strange)}
        found |= {"PYTHONPATH": str(ROOT / ".src"), "PYTHONHASHSEED": "0", "HF_HUB_OFFLINE": "1"}
        if peer.module == ".engine_vllm":
            # Room for keys and values, in whole GiB, of at least so many tokens of 23,040 bytes.
            room = -(-(pool_tokens + BLOCK) * 23_040 // 2**30) + 1
            found |= {"VLLM_CPU_KVCACHE_SPACE": str(room), "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
            found |= {"VLLM_LOGGING_LEVEL": "WARNING"}
        else:
            found |= {"OMP_NUM_THREADS": str(len(self.cores))}
        if peer is BOUND:
            found["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, self.cores))
        return found | dict(peer.variables) | ({} if cache is None else {"XDG_CACHE_HOME": str(cache)})


def python(peer: Peer) -> Path:
    """The interpreter of its environment."""
    folder = Path(os.environ.get(peer.venv, VENVS[peer.venv]))
    return (folder if folder.is_absolute() else ROOT / folder) / "bin" / "python"


def missing(peer: Peer) -> str | None:
    """Why a peer cannot be measured here; None if it can."""
    if not python(peer).is_file():
        return f"there is no {python(peer)}: `make bench-engine` makes it"
    if peer is NATIVE and not Path(os.environ.get("LLAMA_SERVER", "")).is_file():
        return "LLAMA_SERVER names no llama-server of your own build: `make llama-native` makes one"
    return None


class Process:
    """A peer that runs. It works only while it is asked."""

    def __init__(self, peer: Peer, place: Place, pool_tokens: int, *, cache: Path | None = None) -> None:
        self.peer = peer
        self.peak = 0
        """Bytes of memory that it and its children have had at once, each page counted once, as far as was seen."""
        command = [str(python(peer)), "-P", "-m", "sostenuto.bench.engine_worker", peer.module]
        log = place.logs / f"{peer.name}.log"
        begun = perf_counter()
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [*command, json.dumps(place.settings(peer, pool_tokens))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                text=True,
                env=place.variables(peer, pool_tokens, cache),
                cwd=ROOT,
                # A group of its own, for vLLM has children; in our session, so that the kernel hangs up on those that
                # stand still when we are killed.
                process_group=0,
            )
        self._log = log
        told = self._read()
        self.started = perf_counter() - begun
        self.versions: dict[str, str] = told["versions"]
        self.settings: dict[str, Any] = told["settings"]
        self._weigh()
        self._halt()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, what: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """One measurement. RuntimeError with what the peer said where it could not."""
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        try:
            print(json.dumps({"what": what, "with": given}), file=self._process.stdin, flush=True)
            found = self._read()
            self._weigh()
        finally:
            self._halt()
        if "fault" in found:
            raise RuntimeError(f"{self.peer.name}, {what} {dict(given)}: {found['fault']}; see {self._log}")
        return found

    def close(self) -> None:
        """End it and all its children."""
        self._signal(signal.SIGCONT)
        with suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(60)
        self._signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if select([self._process.stdout], [], [], PATIENCE)[0] and (line := self._process.stdout.readline()):
            found: dict[str, Any] = json.loads(line)
            return found
        self._signal(signal.SIGKILL)
        self._process.wait()
        raise RuntimeError(f"{self.peer.name} gave no answer: see {self._log}")

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _halt(self) -> None:
        """Stop it and its children, and see that they stand still before anybody else works."""
        self._signal(signal.SIGSTOP)
        with suppress(psutil.Error):
            own = psutil.Process(self._process.pid)
            for each in (own, *own.children(recursive=True)):
                while each.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
                    sleep(0.001)

    def _weigh(self) -> None:
        """Proportional set sizes: what several processes share is counted once."""
        with suppress(psutil.Error):
            own = psutil.Process(self._process.pid)
            every = [own, *own.children(recursive=True)]
            self.peak = max(self.peak, sum(one.memory_full_info().pss for one in every))
