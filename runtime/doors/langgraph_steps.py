"""How many steps a graph is from its next call of a model: its edges say it, and where models were called so far.

A step is one of LangGraph's supersteps. Conditions are not known beforehand, so it is the shortest of all ways. Inside
a subgraph the way is looked for there first, then in the graph round it. Of nodes whose graph is not known, such as
those of an agent that is called as a tool, nothing is said; nor of ways that no edge shows, such as a `Command` whose
targets are not declared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Place = tuple[str, ...]
"""A node by its name, behind those of the nodes round it, outermost first."""


def place_of(namespace: str) -> Place:
    """The node that a checkpoint namespace names; numbers in it count the subgraphs that one node calls."""
    names = (part.split(":")[0] for part in namespace.split("|"))
    return tuple(name for name in names if name and not name.isdigit())


class Steps:
    """Of one graph of LangGraph's, over all its runs; None: it is not known. `repr` shows where models are called."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._known: Mapping[Place, Mapping[str, set[str]]] | None = None
        self._callers: set[Place] = set()

    def called(self, place: Place) -> None:
        """A model is called in this node."""
        self._callers.update(place[: length + 1] for length in range(len(place)))

    def soonest(self, places: Iterable[Place]) -> int | None:
        """From the nodes that run now: steps until any calls a model, after this one; None where nothing is known."""
        running = set(places)
        # A node in which others run is where they are.
        inner = {place[:length] for place in running for length in range(len(place))}
        found = [steps for place in running - inner if (steps := self._from(place)) is not None]
        return min(found, default=None)

    def __repr__(self) -> str:
        return f"<Steps to {sorted('.'.join(place) for place in self._callers)}>"

    @property
    def _edges(self) -> Mapping[Place, Mapping[str, set[str]]]:
        if self._known is None:
            self._known = {} if self._graph is None else dict(_levels((), self._graph))
        return self._known

    def _from(self, place: Place) -> int | None:
        if place[:-1] not in self._edges or place in self._edges:
            return None  # nobody knows what comes after it, or the nodes inside it say so
        while place:
            *above, node = place
            level = tuple(above)
            steps = self._way(level, self._edges.get(level, {}), node)
            if steps is not None:
                return steps
            place = level
        return None

    def _way(self, level: Place, edges: Mapping[str, set[str]], node: str) -> int | None:
        steps, now, seen = 0, {node}, {node}
        while now:
            steps += 1
            now = {target for source in now for target in edges.get(source, ())}
            if any((*level, target) in self._callers for target in now):
                return steps
            now -= seen
            seen |= now
        return None


def _levels(place: Place, graph: Any) -> Iterable[tuple[Place, Mapping[str, set[str]]]]:
    edges: dict[str, set[str]] = {}
    for edge in graph.get_graph().edges:
        edges.setdefault(edge.source, set()).add(edge.target)
    yield place, edges
    for name, inner in graph.get_subgraphs():
        yield from _levels((*place, name), inner)
