"""What guards cost beside what they replace: log, limits, grants, dispatch, and a constrained token in the engine."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, cast

import torch
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from sostenuto.runtime.ask import Ask, Message
from sostenuto.runtime.doors.langgraph import tool_node
from sostenuto.runtime.engines import Speaker
from sostenuto.runtime.execute.audit import Audit, verify_file
from sostenuto.runtime.guards import Guards
from sostenuto.runtime.host import Host
from sostenuto.runtime.sampling import Sampling
from sostenuto.tools import Choice, read_tool
from sostenuto.tools.audit import START as BEGINNING
from sostenuto.tools.audit import Anchor, sealed, verified
from sostenuto.tools.grants import Asked, Ceiling, genuine, holder_of
from sostenuto.tools.grants_book import Book, Terms
from sostenuto.tools.limits import Bucket

from .report import alternate, micro

KEY = b"0123456789abcdef0123456789abcdef"
READ = read_tool({"name": "read", "parameters": {"type": "object", "properties": {"path": {"type": "string"}}}})
REPO: Any = {"properties": {"path": {"pattern": "^/repo/"}}, "required": ["path"]}
MANY = 100
"""Of what takes a few microseconds, so many are timed at once."""


def guards() -> None:
    """Prints a line for each, in microseconds."""
    for count in (2010, 200_000):
        _log(count)
    _file(2010)
    bucket = Bucket(rate=1e9, burst=1000)
    (taken,) = alternate(500, _many(lambda: bucket.take(0.0)))
    _line("rate limit: one check", taken, each=MANY)
    _grants()
    _dispatch()


def constrained(at_once: int = 8, tokens: int = 64, rounds: int = 12) -> None:
    """What the grammar adds to a decode step: answers of one length in turns, with and without one.

    Nothing ends before its time: no answer may end or begin a call by itself, with a grammar or without.
    """
    schema = {"type": "object", "properties": {"text": {"type": "string", "minLength": 2000}}, "required": ["text"]}
    teller = read_tool({"name": "tell", "description": "Tells a story.", "parameters": schema})
    ways: list[tuple[str, Any, bool]] = [
        ("in a call: free", "any", False),
        ("in a call: held", "any", True),
        ("in free text: free", "auto", False),
        ("in free text: held", "auto", True),
    ]
    endless = _Endless()

    def run(mode: Any, held: bool) -> Callable[[], object]:
        def ask(seed: int) -> Ask:
            sampling = Sampling(temperature=0.7, seed=seed, max_tokens=tokens)
            asked = (Message("user", "Tell a story."),)
            return Ask(asked, (teller,), choice=Choice(mode), constrain=held, returns=False, sampling=sampling)

        def answers() -> None:
            endless.forbidden = forbidden[mode]
            going = [host.ask(ask(seed)) for seed in range(at_once)]
            for each in going:
                answer = each.wait()
                assert len(answer.tokens) == tokens, f"an answer of {len(answer.tokens)} tokens: nothing is to end"
                text = tokenizer.decode(answer.tokens)
                assert text.startswith("<tool_call>") if held and mode == "any" else mode == "any" or "<" not in text

        return answers

    with Host.open(guards=Guards(watches=[endless])) as host:
        speaker = cast(Speaker, host.engine)
        tokenizer: Any = speaker.tokenizer
        marks = [token for token in range(len(tokenizer)) if "<" in tokenizer.decode([token])]
        forbidden = {"any": torch.tensor(sorted(speaker.eos)), "auto": torch.tensor(sorted({*marks, *speaker.eos}))}
        taken = alternate(rounds, *(run(mode, held) for _, mode, held in ways))
    for place, (name, _, held) in enumerate(ways):
        _line(
            f"engine, {at_once} at once, a step {name}", taken[place], taken[place - 1] if held else None, each=tokens
        )


class _Endless:
    """Watches logits: an answer is as long as it may be, and holds no call."""

    def __init__(self) -> None:
        self.forbidden = torch.empty(0, dtype=torch.long)

    def look(self, said: Sequence[int], logits: Any) -> Any:
        return logits.index_fill(0, self.forbidden, -math.inf)


def _log(count: int) -> None:
    lines: list[bytes] = []
    last = [BEGINNING]

    def append() -> None:
        lines.clear()
        before = BEGINNING
        for n in range(count):
            body = {"log": "one", "kind": "opened"} if not n else {"kind": "decided", "tool": "read", "allowed": True}
            line, before = sealed(n, body, before, KEY)
            lines.append(line)
        last[0] = before

    def verify() -> None:
        found = verified(lines, KEY, [Anchor("one", count - 1, last[0])])
        assert not found.faults
        assert found.records == count

    appending, verifying = alternate(25 if count < 10_000 else 3, append, verify)
    _line(f"log of {count}: append a record", appending, each=count)
    _line(f"log of {count}: verify all, a record", verifying, each=count)


def _file(count: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "log")
        with Audit(path, KEY) as audit:
            (appending,) = alternate(count - 1, lambda: audit.append("decided", {"tool": "read", "allowed": True}))
        (verifying,) = alternate(10, lambda: verify_file(path, KEY))
    _line("log in a file: append a record, with its head", appending)
    _line(f"log in a file of {count + 2}: verify all, a record", verifying, each=count + 2)


def _grants() -> None:
    book = Book(KEY)
    holder = holder_of(READ, "a")
    ceiling = Ceiling(REPO, effects="read")
    asked = Asked(holder_of(READ, "a", session="s", task="t"), {"path": "/repo/x"}, "read")
    root = book.mint(holder, ceiling, 0.0, issuer="node")
    less = book.attenuate(root, Terms())
    ours: list[tuple[str, Callable[[], object]]] = [
        ("mint", lambda: book.mint(holder, ceiling, 0.0, issuer="node")),
        ("attenuate", lambda: book.attenuate(root, Terms())),
        ("check a chain of two against a call", lambda: book.check(less, asked, 1.0)),
    ]
    assert book.check(less, asked, 1.0) is None
    theirs: list[Callable[[], object]] = []
    if importlib.util.find_spec("biscuit_auth") is not None:
        theirs = _biscuits(importlib.import_module("biscuit_auth"))
    taken = alternate(100, *(_many(call) for _, call in ours), *(_many(call) for call in theirs))
    for place, (name, _) in enumerate(ours):
        peer = taken[len(ours) + place] if theirs else None
        _line(f"grant: {name}", taken[place], peer, each=MANY)
        if peer is not None:
            _line(f"biscuit: {name}", peer, each=MANY)
    (codes,) = alternate(100, _many(lambda: genuine((root, less), KEY)))
    _line("grant: the codes of a chain of two alone", codes, each=MANY)


def _biscuits(biscuit: Any) -> list[Callable[[], object]]:
    pair = biscuit.KeyPair()
    until = datetime.now(tz=UTC) + timedelta(hours=1)

    def mint() -> Any:
        rules = 'right("read"); check if time($t), $t < {until}'
        return biscuit.BiscuitBuilder(rules, {"until": until}).build(pair.private_key)

    def less() -> Any:
        return token.append(biscuit.BlockBuilder('check if path($p), $p.starts_with("/repo/")'))

    def check() -> None:
        read = biscuit.Biscuit.from_base64(text, pair.public_key)
        rules = 'time({now}); path("/repo/x"); allow if right("read")'
        asking = biscuit.AuthorizerBuilder(rules, {"now": datetime.now(tz=UTC)})
        limits = asking.limits()
        limits.max_time = timedelta(seconds=10)  # its own, a millisecond, fails on a busy machine
        asking.set_limits(limits)
        asking.build(read).authorize()

    token = mint()
    text = less().to_base64()
    return [mint, less, check]


def _dispatch() -> None:
    @tool
    def add(a: int, b: int) -> str:
        """Adds."""
        return str(a + b)

    calls = [{"name": "add", "args": {"a": 1, "b": n}, "id": f"c{n}", "type": "tool_call"} for n in range(8)]
    state: Any = {"messages": [AIMessage("", tool_calls=calls)]}
    graphs = []
    for node in (tool_node([add]), ToolNode([add])):
        graph = StateGraph(MessagesState)
        graph.add_node("tools", node)
        graph.add_edge(START, "tools")
        graphs.append(graph.compile())

    async def both() -> list[list[float]]:
        taken: list[list[float]] = [[], []]
        for _ in range(60):
            for times, made in zip(taken, graphs, strict=True):
                start = perf_counter()
                await made.ainvoke(state)
                times.append((perf_counter() - start) * 1e3)
        return [times[5:] for times in taken]

    ours, bare = asyncio.run(both())
    _line("dispatch a call, of eight in a turn: guarded", ours, bare, each=len(calls))
    _line("dispatch a call, of eight in a turn: bare ToolNode", bare, each=len(calls))


def _many(call: Callable[[], object]) -> Callable[[], object]:
    def repeated() -> None:
        for _ in range(MANY):
            call()

    return repeated


def _line(name: str, times: Sequence[float], peer: Sequence[float] | None = None, *, each: int = 1) -> None:
    print(micro(name, times, peer, each=each), flush=True)
