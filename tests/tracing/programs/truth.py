"""Two views of a program that has run, to be laid side by side: what LangGraph told, and what the spans say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from uuid import UUID

from .adapters import Adapter, Spoken
from .ground import Ground, Kind, Run

Key = tuple[object, ...]
"""What tells an execution apart, or a run that is none."""


class Truth:
    """What LangGraph told: graph runs, executions of nodes, their attempts, tools and models."""

    def __init__(self, ground: Ground) -> None:
        self.runs = ground.runs
        # Others open a span for each attempt at a node, and none round them: then each is an execution.
        self._apart = foreign(ground.adapter)
        self.attempts: dict[Key, list[Run]] = defaultdict(list)
        for run in self.runs.values():
            if run.node:
                self.attempts[self.key(run)].append(run)
        # A graph is what has nodes below it and is none; what was called and has no graph below it is one, too.
        above = {run.above for run in self.runs.values() if run.node}
        below = {id for run in above if run is not None for id in self._up(run)}
        self.graphs = [
            run
            for run in self.runs.values()
            if run.sort == "chain"
            and not run.node
            and (run.id in above or (run.above not in self.runs and run.id not in below))
        ]
        self._graphs = {run.id for run in self.graphs}

    def _up(self, id: UUID) -> Iterator[UUID]:
        while id in self.runs and (above := self.runs[id].above) is not None:
            yield above
            id = above

    def kind(self, run: Run) -> Kind | None:
        if run.sort != "chain":
            return run.sort
        return "node" if run.node else "graph" if run.id in self._graphs else None

    def key(self, run: Run) -> Key:
        """What tells it apart: a task within its graph run, else the run itself."""
        return ("node", run.above, run.place) if run.node and not self._apart else (run.sort, run.id)

    def line(self, id: UUID | None) -> list[Run]:
        """From the graph that was called down to this run."""
        found: list[Run] = []
        while id is not None and id in self.runs:
            run = self.runs[id]
            if self.kind(run) is not None:
                found.append(run)
            id = run.above
        return found[::-1]

    def called(self, run: Run) -> bool:
        """Whether the program called this graph itself, and no other graph did."""
        return len(self.line(run.id)) == 1

    def graph(self, run: Run) -> Run:
        """The graph run in which an execution is."""
        return next(each for each in reversed(self.line(run.id)) if self.kind(each) == "graph")


class Seen:
    """The spans, and what they say."""

    def __init__(self, ground: Ground, adapter: Adapter) -> None:
        self.adapter = adapter
        self.spans = ground.tally.ended
        self.began = ground.tally.began
        self.said: dict[int, Spoken] = {}
        # Whose spans do not say of themselves what they stand for is read by somebody who sees them all.
        reader = getattr(adapter, "reader", None)
        read = adapter.read if reader is None else reader(ground)
        for id, span in self.spans.items():
            if (said := read(span)) is not None:
                self.said[id] = said

    def of(self, *kinds: str) -> list[int]:
        return [id for id, said in self.said.items() if said.kind in kinds]

    def up(self, id: int) -> Iterator[int]:
        """The ids of the spans above, nearest first."""
        span = self.spans.get(id)
        while span is not None and span.parent is not None:
            yield span.parent.span_id
            span = self.spans.get(span.parent.span_id)

    def line(self, id: int, *kinds: str) -> list[int]:
        """The spans of these kinds from the root down to just above this one."""
        return [each for each in self.up(id) if each in self.said and self.said[each].kind in kinds][::-1]

    def began_at(self, id: int) -> int:
        return self.spans[id].start_time or 0

    def name(self, id: int) -> str:
        return self.spans[id].name


def foreign(adapter: object) -> bool:
    """Whether an instrumentor's spans are LangChain's callback runs, all of them, and are to be judged as such."""
    return bool(getattr(adapter, "foreign", False))


def named(truth: Truth, line: Sequence[Run]) -> list[tuple[str, str]]:
    """Kinds and names; a model has none that all agree on."""
    kinds = [(truth.kind(run) or "", run) for run in line]
    return [(kind, "" if kind == "model" else run.name) for kind, run in kinds]
