"""Best-of-n, beam and Monte Carlo tree search by a LangGraph graph: every step forks the cache of the one before."""

from __future__ import annotations

import operator
import random
from collections import defaultdict
from collections.abc import Mapping
from statistics import median
from time import perf_counter
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send

from sostenuto.runtime.ask import Message
from sostenuto.runtime.host import Host
from sostenuto.runtime.sampling import Sampling
from sostenuto.runtime.search import Node, Strategy, Tree, beam, best_of, mcts
from sostenuto.runtime.session import Session

SEARCHES = {"best of 6": best_of(6), "beam 2x6": beam(2, 6), "mcts of 16": mcts(16, 6)}
STEP = {"type": "string", "pattern": "^[0-9]{1,3} [+-] [0-9]{1,2} = [0-9]{1,3}$"}
FORM = {"type": "object", "properties": {"step": STEP}, "required": ["step"], "additionalProperties": False}
WARM = Sampling(temperature=0.7, max_tokens=32)
SAID = ("Bo has 12 pears, gets 5, then gets 3.", '{"step": "12 + 5 = 17"}', "And then?", '{"step": "17 + 3 = 20"}')
EXAMPLE = [Message("assistant" if text.startswith("{") else "user", text) for text in SAID]


def problem(seed: int) -> tuple[str, list[int]]:
    """A word problem, and the result of each of its steps."""
    draw = random.Random(seed)
    first, *more = [draw.randint(10, 20), *(draw.randint(2, 9) for _ in range(3))]
    results = [first + sum(more[: step + 1]) for step in range(len(more))]
    return f"Ada has {first} apples, {', then '.join(f'gets {number}' for number in more)}.", results


class State(TypedDict):
    grown: Annotated[list[Any], operator.add]


class Search:
    """A search over one problem, as a graph; without `share` every step is a prompt that nobody has seen before."""

    def __init__(self, host: Host, asked: tuple[str, list[int]], strategy: Strategy, *, share: bool) -> None:
        self.host, self.strategy, self.share, self.results = host, strategy, share, asked[1]
        self.tree, self.reused, self.times = Tree(), 0, defaultdict[str, list[float]](list)
        root = Session(host, schema=FORM, sampling=WARM, tenant=f"root {random.random()}")
        root.read([*EXAMPLE, Message("user", asked[0])])
        self.places = [(root, root.mark("root"))]

    def choose(self, state: State) -> Command[Any]:
        """Take in what has grown, and send for more."""
        for number, right, *place in state["grown"][len(self.places) - 1 :]:
            above = self.tree.nodes[number]
            value = (above.depth + right) / len(self.results)
            self.tree.add(above, value, over=not right or value == 1)
            self.places.append((place[0], place[1]))
        wanted, first = self.strategy(self.tree), len(self.tree.nodes)
        alone = len(wanted) == 1
        return Command(goto=[Send("grow", (node.number, seed, alone)) for seed, node in enumerate(wanted, first)])

    def grow(self, task: Any) -> State:
        """One more step below a node; a wrong one is an end."""
        number, seed, alone = task
        session = self.stand(number, alone)
        answer = session.generate(seed=seed)
        self.reused += answer.facts.reused_tokens
        right = f'= {self.results[self.tree.nodes[number].depth]}"' in answer.text
        session.read([Message("user", "And then?")])
        return {"grown": [(number, right, session, session.mark(f"node {seed}"))]}

    def stand(self, number: int, alone: bool) -> Session:
        """A session at a node: the one that went on from there, rolled back, or a fork where others go on too."""
        session, mark = self.places[number]
        if not self.share:
            fresh = f"fresh {random.random()}"
            return Session(self.host, schema=FORM, sampling=WARM, tenant=fresh, history=mark.history)
        begun, what = perf_counter(), "fork"
        if alone and session.can_go_back(mark):
            what = "rollback" if session.rollback(mark) else "stay"
        else:
            (session,) = session.fork(at=mark)
        self.times[what].append(perf_counter() - begun)
        return session

    def run(self) -> Node:
        """Search; returns the best node."""
        graph: Any = StateGraph(State)
        graph.add_node("choose", self.choose, destinations=("grow",)).add_node("grow", self.grow)
        graph.add_edge(START, "choose").add_edge("grow", "choose")
        graph.compile().invoke({"grown": []}, {"recursion_limit": 500})
        for session, _ in self.places:
            session.close()
        return self.tree.best()


def promises(host: Host, engine: Any) -> None:
    """What holds of every fork and rollback, shown once."""
    with Session(host, schema=FORM, sampling=WARM) as root:
        root.read([*EXAMPLE, Message("user", "Ida has 11 apples, gets 4, then gets 2.")])
        root.generate(4, seed=1)
        (fork,), before = root.fork(reseed=False), engine.rows
        said = fork.generate().tokens
        assert engine.rows - before == len(said), "a fork computes no token of what it shares"
        with Session(host, schema=FORM, tenant="alone", history=root.mark("here").history) as alone:
            assert alone.generate().tokens == said, "and says what the same tokens say alone"
        assert root.generate().tokens == said
        assert root.rollback("here") == len(said)
        assert root.generate().tokens == said, "rolled back and drawn again with the same seed, it says the same"


def main(searches: Mapping[str, Strategy] = SEARCHES, *, dtype: str | None = None) -> None:
    with Host.open(pool_tokens=8192, dtype=dtype) as host:
        engine: Any = host.engine
        promises(host, engine)
        for name, strategy in searches.items():
            counts = []
            for how, share in (("forked", True), ("fresh prompts", False)):
                before, search = engine.rows, Search(host, problem(1), strategy, share=share)
                best = search.run()
                counts.append(engine.rows - before)
                took = [f", {what} {1e3 * median(times):.2f} ms" for what, times in search.times.items()]
                explored, solved = (
                    len(search.tree.nodes) - 1,
                    "solved" if best.value == 1 else f"{best.value:.0%} right",
                )
                print(f"{name}, {how}: {solved}, {explored} nodes explored, {counts[-1]} tokens computed,", end=" ")
                print(f"{search.reused} reused{''.join(took)}")
            print(f"  fresh prompts compute {counts[1] / counts[0]:.1f} times as many tokens")
            assert counts[1] > 2 * counts[0]


if __name__ == "__main__":
    main()
