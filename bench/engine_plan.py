"""What `make bench-engine` measures: cells, and acts in which the same processes measure several of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .engine_agents import Agents
from .engine_peers import BATCHING, BOUND, DEFAULT, EXACT, FAST, GENERATE, LIMITS, LLAMA, NATIVE, PEERS, Peer

CONTEXTS = {"128": 128, "1k": 1024, "4k": 4096, "8k": 8064}
"""8k leaves room for the answer below the model's 8,192 positions."""
BATCHES = (1, 2, 4, 8, 16)
SAID = 64
"""Tokens of each answer in `decode`."""
SHORT, LONG = 24_576, 133_120
"""Tokens of the pools: that of many peers at once, and that of 16 contexts of 8k with their answers."""
LINEAR = {"1k": 1024, "2k": 2048, "4k": 4096, "8k": 8192, "16k": 16_384, "32k": 32_704}
SERVERS = (EXACT, FAST, BOUND, DEFAULT)
"""Whom agents are put to."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement, of as many rounds as there are; `peers` are those who can."""

    name: str
    what: str
    given: Mapping[str, Any]
    peers: Sequence[Peer]


@dataclass(frozen=True, slots=True)
class Act:
    """Cells for which the same processes stay alive, and take turns; `alone`: one process after the other."""

    name: str
    pool_tokens: int
    rounds: int
    cells: Sequence[Cell]
    alone: bool = False


def full(agents: Sequence[Agents]) -> list[Act]:
    """Everything."""
    short = [*_prefills(PEERS, ("1k", "4k", "8k")), *_decodes(PEERS, SHORT), _resume(PEERS)]
    long = [cell for cell in _decodes((EXACT, BOUND), LONG) if not any(cell.name == known.name for known in short)]
    acts = [
        Act("limits", 0, 3, [*_limits(profiles=(1024, 4096))]),
        Act("short", SHORT, 4, short),
        Act("long", LONG, 3, long),
    ]
    acts += [_agents(each, 2, SERVERS) for each in agents]
    return [*acts, _starts(3, PEERS)]


def quick(agents: Sequence[Agents]) -> list[Act]:
    """The most telling cells and peers, in about a quarter of an hour."""
    few = (EXACT, FAST, BOUND, LLAMA, NATIVE, GENERATE)
    told = ("decode 1 x 128", "decode 1 x 4k", "decode 8 x 128", "decode 8 x 1k")
    decodes = [
        replace(cell, peers=[peer for peer in cell.peers if peer is not GENERATE or cell.given["batch"] == 1])
        for cell in _decodes(few, SHORT)
        if cell.name in told
    ]
    resume = Cell("resume 4k", "resume", {"tokens": 4096, "new": 32}, few)
    acts = [
        Act("limits", 0, 1, [*_limits(profiles=(1024,))]),
        Act("short", SHORT, 2, [*_prefills(few, ("1k", "4k")), *decodes, resume]),
    ]
    acts += [_agents(each, 1, (EXACT, BOUND)) for each in agents]
    starts = _starts(1, (EXACT, BOUND, LLAMA))
    return [*acts, replace(starts, cells=[cell for cell in starts.cells if not cell.given["anew"]])]


def _prefills(peers: Sequence[Peer], contexts: Sequence[str]) -> Iterator[Cell]:
    for name in contexts:
        yield Cell(f"prefill {name}", "prefill", {"tokens": CONTEXTS[name]}, peers)


def _decodes(peers: Sequence[Peer], pool: int) -> Iterator[Cell]:
    """Those that fit into a pool. Of the others than ours and vLLM only what is read again in bearable time."""
    slow = (LLAMA, NATIVE, GENERATE, BATCHING)
    for batch in BATCHES:
        for name, context in CONTEXTS.items():
            if batch * (context + SAID + 32) > pool:
                continue
            patient = [peer for peer in peers if peer not in slow or batch == 1 or context <= 1024]
            given = {"batch": batch, "context": context, "tokens": SAID}
            yield Cell(f"decode {batch} x {name}", "decode", given, patient)


def _resume(peers: Sequence[Peer]) -> Cell:
    return Cell("resume 4k", "resume", {"tokens": 4096, "new": 32}, peers)


def _agents(agents: Agents, rounds: int, peers: Sequence[Peer]) -> Act:
    given = {"sessions": agents.file, "pressure": agents.pressure}
    return Act(agents.name, agents.pool_tokens, rounds, [Cell(agents.name, "agents", given, peers)], alone=True)


def _limits(profiles: Sequence[int]) -> Iterator[Cell]:
    peers = (LIMITS,)
    yield Cell("bandwidth", "bandwidth", {}, peers)
    yield Cell("gemm", "gemm", {}, peers)
    for mode in ("exact", "fast"):
        yield Cell(f"bytes {mode}", "bytes", {"mode": mode}, peers)
        yield Cell(f"profile {mode} decode", "profile", {"mode": mode, "tokens": 1, "behind": 128}, peers)
    for tokens in profiles:
        yield Cell(
            f"profile exact prefill {tokens}", "profile", {"mode": "exact", "tokens": tokens, "behind": 0}, peers
        )
    for name, context in LINEAR.items():
        yield Cell(f"linear {name}", "linear", {"context": context}, peers)


def _starts(rounds: int, peers: Sequence[Peer]) -> Act:
    cells = [Cell("start anew", "start", {"anew": True}, peers)]
    cells += [Cell("start again", "start", {"anew": False}, peers)]
    return Act("start", 8192, rounds, cells, True)
