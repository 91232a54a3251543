"""Tree search over conversations: which node to grow next. Plain functions over a plain tree.

A strategy sees the tree and names the nodes to grow, once for each child that it wants; nothing named ends the search.
How a child is made, by forking or rolling back a session or by a fresh prompt, is the caller's affair.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Node:
    """A place in the tree. `value` says how good it looks, 0 to 1; `over` that nothing follows it."""

    number: int
    parent: Node | None
    value: float
    over: bool
    children: list[Node] = field(default_factory=list)
    visits: int = 0
    """Endings seen below it."""
    total: float = 0.0
    """Their values added up."""

    @property
    def depth(self) -> int:
        return 0 if self.parent is None else self.parent.depth + 1

    def path(self) -> Iterator[Node]:
        """From here to the root."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent


class Tree:
    """All nodes, numbered as they came; 0 is the root."""

    def __init__(self) -> None:
        self.nodes = [Node(0, None, 0.0, False)]

    @property
    def root(self) -> Node:
        return self.nodes[0]

    def add(self, parent: Node, value: float, *, over: bool) -> Node:
        """A child; an ending is counted on its whole path. Raises ValueError below an ending."""
        if parent.over:
            raise ValueError(f"node {parent.number} is over: nothing follows it")
        node = Node(len(self.nodes), parent, value, over)
        self.nodes.append(node)
        parent.children.append(node)
        if over:
            count(node)
        return node

    @property
    def endings(self) -> int:
        """Endings counted so far, one that was visited twice counted twice."""
        return self.root.visits

    def best(self) -> Node:
        """The best ending; the best node where there is none; of equals the first."""
        return max(self.nodes, key=lambda node: (node.over, node.value, -node.number))


def count(ending: Node) -> None:
    """One more visit of an ending, on its whole path."""
    for node in ending.path():
        node.visits += 1
        node.total += ending.value


Strategy = Callable[[Tree], list[Node]]


def best_of(n: int) -> Strategy:
    """`n` lines from the root to their ends, side by side."""

    def grow(tree: Tree) -> list[Node]:
        if not tree.root.children:
            return [tree.root] * n
        return [node for node in tree.nodes[1:] if not node.children and not node.over]

    return grow


def beam(width: int, branching: int) -> Strategy:
    """Level by level: of each level the best `width` nodes get `branching` children each."""

    def grow(tree: Tree) -> list[Node]:
        level = tree.nodes[-1].depth
        open_nodes = [node for node in tree.nodes if node.depth == level and not node.over]
        best = sorted(open_nodes, key=lambda node: (-node.value, node.number))[:width]
        return [node for node in best for _ in range(branching)]

    return grow


def mcts(endings: int, branching: int, *, explore: float = math.sqrt(2)) -> Strategy:
    """Monte Carlo tree search with UCT (Kocsis and Szepesvari, ECML 2006), until so many endings were counted.

    A line once begun is played to its end; then the tree is descended from the root, by the bound, to the first node
    with fewer than `branching` children. What is played stays in the tree.
    """

    def bound(node: Node) -> float:
        assert node.parent is not None
        return node.total / node.visits + explore * math.sqrt(math.log(node.parent.visits) / node.visits)

    def grow(tree: Tree) -> list[Node]:
        last = tree.nodes[-1]
        if not last.over:
            return [last]
        while tree.endings < endings:
            node = tree.root
            while len(node.children) >= branching:
                node = max(node.children, key=bound)
            if not node.over:
                return [node]
            count(node)
        return []

    return grow
