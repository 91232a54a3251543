"""What guards cost beside what they replace: log, limits, grants, dispatch, and a constrained token in the engine."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from statistics import median
from time import perf_counter
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from sostenuto.runtime.ask import Ask, Message
from sostenuto.runtime.doors.langgraph import tool_node
from sostenuto.runtime.host import Host
from sostenuto.runtime.sampling import Sampling
from sostenuto.tools import Choice, read_tool
from sostenuto.tools.audit import START as BEGINNING
from sostenuto.tools.audit import sealed, verified
from sostenuto.tools.grants import Asked, Ceiling, genuine, holder_of
from sostenuto.tools.grants_book import Book, Terms
from sostenuto.tools.limits import Bucket

from .report import alternate

KEY = b"0123456789abcdef0123456789abcdef"
READ = read_tool({"name": "read", "parameters": {"type": "object", "properties": {"path": {"type": "string"}}}})
REPO: Any = {"properties": {"path": {"pattern": "^/repo/"}}, "required": ["path"]}


def guards() -> None:
    """Prints a line for each; microseconds, the best of several rounds."""
    for count in (2010, 200_000):
        _log(count)
    bucket = Bucket(rate=1e9, burst=1000)
    _line("rate limit: one check", _best(lambda: [bucket.take(n * 1e-3) for n in range(1000)], 1000))
    _grants()
    if importlib.util.find_spec("biscuit_auth") is not None:
        _biscuits(importlib.import_module("biscuit_auth"))
    _dispatch()


def constrained(at_once: int = 8, tokens: int = 64, rounds: int = 5) -> None:
    """What the grammar adds to a decode step: the same answers, forced to the same length, with and without one."""
    schema = {"type": "object", "properties": {"text": {"type": "string", "minLength": 200}}, "required": ["text"]}
    teller = read_tool({"name": "tell", "description": "Tells a story.", "parameters": schema})
    messages = (Message("user", "Tell a story."),)

    def run(held: bool, mode: Any) -> Callable[[], object]:
        def answers() -> None:
            going = [
                host.ask(
                    Ask(
                        messages,
                        (teller,),
                        choice=Choice(mode),
                        constrain=held,
                        returns=False,
                        sampling=Sampling(temperature=0.7, seed=seed, max_tokens=tokens),
                    )
                )
                for seed in range(at_once)
            ]
            said = sum(len(each.wait().tokens) for each in going)
            counted[held, mode].append(said)

        counted[held, mode] = []
        return answers

    counted: dict[tuple[bool, str], list[int]] = {}
    ways = [(False, "any"), (True, "any"), (False, "auto"), (True, "auto")]
    with Host.open() as host:
        taken = alternate(rounds, *(run(*way) for way in ways))
    for way, times in zip(ways, taken, strict=True):
        steps = median(counted[way]) / at_once
        name = f"engine, {at_once} at once, {way[1]}, {'held' if way[0] else 'free'}"
        print(f"  {name:<52}{median(times) / steps:>11.3f} ms a step, {steps:.0f} steps")


def _log(count: int) -> None:
    lines: list[bytes] = []

    def append() -> None:
        lines.clear()
        before = BEGINNING
        for n in range(count):
            body = {"log": "one", "kind": "opened"} if not n else {"kind": "decided", "tool": "read", "allowed": True}
            line, before = sealed(n, body, before, KEY)
            lines.append(line)

    rounds = 5 if count < 10_000 else 1
    _line(f"log of {count}: append a record", _best(append, count, rounds))
    _line(f"log of {count}: verify all, a record", _best(lambda: verified(lines, KEY, ()), count, rounds))


def _grants() -> None:
    book = Book(KEY)
    holder = holder_of(READ, "a")
    ceiling = Ceiling(REPO, effects="read")
    asked = Asked(holder_of(READ, "a", session="s", task="t"), {"path": "/repo/x"}, "read")
    root = book.mint(holder, ceiling, 0.0, issuer="node")
    less = book.attenuate(root, Terms())
    _line("grant: mint", _best(lambda: book.mint(holder, ceiling, 0.0, issuer="node"), 1))
    _line("grant: attenuate", _best(lambda: book.attenuate(root, Terms()), 1))
    _line("grant: check a chain of two against a call", _best(lambda: book.check(less, asked, 1.0), 1))
    _line("grant: the codes of a chain of two alone", _best(lambda: genuine((root, less), KEY), 1))


def _biscuits(biscuit: Any) -> None:
    pair = biscuit.KeyPair()
    until = datetime.now(tz=UTC) + timedelta(hours=1)

    def mint() -> Any:
        return biscuit.BiscuitBuilder('right("read"); check if time($t), $t < {until}', {"until": until}).build(
            pair.private_key
        )

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
    _line("biscuit: mint", _best(mint, 1))
    _line("biscuit: attenuate", _best(less, 1))
    _line("biscuit: read and check two blocks", _best(check, 1))


def _dispatch() -> None:
    @tool
    def add(a: int, b: int) -> str:
        """Adds."""
        return str(a + b)

    calls = [{"name": "add", "args": {"a": 1, "b": n}, "id": f"c{n}", "type": "tool_call"} for n in range(8)]
    state: Any = {"messages": [AIMessage("", tool_calls=calls)]}
    graphs = []
    for node in (ToolNode([add]), tool_node([add])):
        graph = StateGraph(MessagesState)
        graph.add_node("tools", node)
        graph.add_edge(START, "tools")
        graphs.append(graph.compile())

    async def both() -> None:
        taken: list[list[float]] = [[], []]
        for _ in range(30):
            for times, made in zip(taken, graphs, strict=True):
                start = perf_counter()
                await made.ainvoke(state)
                times.append((perf_counter() - start) / len(calls) * 1e6)
        bare, ours = (sorted(times)[len(times) // 2] for times in taken)
        _line("dispatch a call: bare ToolNode", bare)
        _line(f"dispatch a call: guarded, {ours / bare:.2f} x", ours)

    asyncio.run(both())


def _best(call: Callable[[], object], each: int, rounds: int = 200) -> float:
    """Microseconds for one of the `each` things that a call does."""
    taken = []
    for _ in range(rounds):
        start = perf_counter()
        call()
        taken.append(perf_counter() - start)
    return sorted(taken)[len(taken) // 4] / each * 1e6


def _line(name: str, microseconds: float) -> None:
    print(f"  {name:<52}{microseconds:>11.2f}")
