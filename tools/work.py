"""How much work may a schema make of one value? What is said in few words may unfold without end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .errors import BadSchema
from .ids import followed
from .places import Json, Node, anchors, children, places

MAX_DEPTH = 64
MAX_STEPS = 10_000
"""Schemas that one value may have to be held against."""
MAX_WORK = 500_000
"""The same for all the values inside of an argument."""
MAX_TARGETS = 200
"""From so many targets of references on, nobody looks which of them lead back."""

_IN_PLACE = {"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"}


@dataclass(frozen=True, slots=True)
class Work:
    """What a value can cost."""

    steps: int
    """Schemas that one value is held against, at most."""
    forks: bool
    """What refers to itself does so more than once, so that each level of a value may double the work."""


def work(root: Node) -> Work:
    """The work of a schema whose references are pointers and lead somewhere.

    Raises BadSchema for one that comes back to itself without going inward, and for one that unfolds too far.
    """
    graph = Graph(root)
    steps = _steps(graph, "")
    targets = {target for path in graph.nodes for target in graph.references(path)}
    if len(targets) > MAX_TARGETS:
        return Work(steps, True)
    leading_back = 0
    for target in targets:
        reached = graph.reached(target)
        leading_back += sum(target in graph.references(path) for path in reached)
    return Work(steps, leading_back > 1)


@dataclass(frozen=True, slots=True)
class Size:
    """Of a value."""

    values: int
    text: int
    """Characters of the longest text in it."""
    key: int
    """Characters of the longest key."""
    depth: int


def measure(value: Json, most: int = MAX_WORK) -> Size:
    """The size of a value, looking no further when it has more than `most` values or levels than any may have."""
    count = text = key = depth = 0
    level = [value]
    while level and count <= most and depth <= MAX_DEPTH:
        depth += 1
        count += len(level)
        inner: list[Json] = []
        for found in level:
            if isinstance(found, str):
                text = max(text, len(found))
            elif isinstance(found, dict):
                key = max(key, *map(len, found), 0)
                inner += found.values()
            elif isinstance(found, list):
                inner += found
        level = inner
    return Size(count, text, key, depth)


class Graph:
    """A schema as places and the ways between them."""

    def __init__(self, root: Node) -> None:
        self.nodes = dict(places(root))
        self._root = root
        self._named: dict[str, list[str]] = {}
        for path, node in self.nodes.items():
            for name in anchors(node):
                self._named.setdefault(name, []).append(path)

    def references(self, path: str) -> list[str]:
        """Where the references at a place may lead; a dynamic one to every anchor of its name."""
        node = self.nodes.get(path, {})
        found: list[str] = []
        for key in ("$ref", "$dynamicRef", "$recursiveRef"):
            if isinstance(reference := node.get(key), str):
                if reference in ("", "#") or reference.startswith("#/"):
                    found.append(followed(reference))
                else:
                    found += self._named.get(reference.lstrip("#"), ())
        return found

    def in_place(self, path: str) -> list[str]:
        """What the same value is held against too."""
        node = self.nodes.get(path, {})
        return [path + step for key, step, _ in children(node) if key in _IN_PLACE] + self.references(path)

    def reached(self, start: str) -> set[str]:
        """Every place that can be come to from here, inward and by references."""
        agenda, seen = [start], {start}
        while agenda:
            path = agenda.pop()
            for after in self._after(path):
                if after not in seen:
                    seen.add(after)
                    agenda.append(after)
        return seen

    def _after(self, path: str) -> Iterator[str]:
        node = self.nodes.get(path)
        if isinstance(node, Mapping):
            yield from (path + step for _, step, child in children(node) if isinstance(child, Mapping))
            yield from self.references(path)


def _steps(graph: Graph, start: str) -> int:
    """The most that any place reached from `start` unfolds to."""
    done: dict[str, int] = {}
    most = 1
    for path in sorted(graph.reached(start)):
        most = max(most, _unfolded(graph, path, done))
    return most


def _unfolded(graph: Graph, start: str, done: dict[str, int]) -> int:
    open_now: set[str] = set()
    agenda: list[tuple[str, bool]] = [(start, False)]
    while agenda:
        path, back = agenda.pop()
        if back:
            open_now.discard(path)
            done[path] = 1 + sum(done[after] for after in graph.in_place(path))
            if done[path] > MAX_STEPS:
                raise BadSchema(path, f"what unfolds to more than {MAX_STEPS} schemas", "fewer alternatives")
        elif path not in done:
            if path in open_now:
                raise BadSchema(path, "a schema that refers to itself for the same value", "references that go inward")
            open_now.add(path)
            agenda.append((path, True))
            agenda += [(after, False) for after in graph.in_place(path)]
    return done[start]
