"""What a rollout said, read and earned: a tree whose nodes hold only the tokens they add. Pure data.

Token ids are the truth, and beside each stands how it came about. A sample, which a trainer learns from, is a walk from
the root (the prompt) to a node; what samples have in common is stored once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NewType, Protocol, get_args

from ..engines import End, Mode
from ..errors import BadRollout

NodeId = NewType("NodeId", int)

ROOT = NodeId(0)
UNSAID = -1
"""The policy version of a token that no policy said."""
FORMAT = "sostenuto.rollout/1"
SLACK = 1e-3
"""A logarithm of a probability may lie so far above zero: sums in float32 and bfloat16 are not exact."""


class Told(Protocol):
    """What an engine tells of a token that it sampled."""

    @property
    def token(self) -> int | None: ...
    @property
    def logprob(self) -> float: ...
    @property
    def drawn(self) -> float: ...
    @property
    def tempered(self) -> float: ...
    @property
    def forced(self) -> bool: ...
    @property
    def version(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive tokens, and for each how it came about. Raises BadRollout where that does not fit together."""

    ids: tuple[int, ...] = ()
    mask: tuple[int, ...] = ()
    """1: the model said it, and a trainer may learn from it; 0: it was put before the model."""
    logprobs: tuple[float, ...] = ()
    """Under the model's own distribution; 0 where nothing was said."""
    drawn: tuple[float, ...] = ()
    """Under the distribution it was drawn from: penalties, grammar and temperature applied, nothing cut off."""
    tempered: tuple[float, ...] = ()
    """Under the model's own distribution at the sampling temperature: what a policy gradient compares."""
    forced: tuple[bool, ...] = ()
    """The grammar allowed nothing else: there was nothing to decide, and there is nothing to learn."""
    versions: tuple[int, ...] = ()
    """Of the weights that said it; UNSAID where nothing was said."""

    def __post_init__(self) -> None:
        for column in fields(self):
            found = len(getattr(self, column.name))
            if found != len(self.ids):
                raise BadRollout(
                    f"{column.name}: found {found} values beside {len(self.ids)} ids; expected one for each token"
                )
        for at, (token, said) in enumerate(zip(self.ids, self.mask, strict=True)):
            if token < 0 or said not in (0, 1):
                raise BadRollout(
                    f"token {at}: found id {token} with mask {said}; expected ids from 0 and a mask of 0 or 1"
                )
            if said and self.versions[at] < 0:
                raise BadRollout(f"token {at}: the model said it, by version {self.versions[at]}; expected 0 or more")
            for name in ("logprobs", "drawn", "tempered"):
                _check_log(name, getattr(self, name)[at], at, said)

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def read(cls, ids: Sequence[int]) -> Piece:
        """Tokens that were put before the model: a prompt, a tool's result."""
        count = len(ids)
        zeros = (0.0,) * count
        return cls(tuple(ids), (0,) * count, zeros, zeros, zeros, (False,) * count, (UNSAID,) * count)

    @classmethod
    def said(cls, told: Iterable[Told]) -> Piece:
        """Tokens of an answer; what is told without a token is left out."""
        ones = [(one.token, one) for one in told if one.token is not None]
        return cls(
            ids=tuple(token for token, _ in ones),
            mask=(1,) * len(ones),
            logprobs=tuple(one.logprob for _, one in ones),
            drawn=tuple(one.drawn for _, one in ones),
            tempered=tuple(one.tempered for _, one in ones),
            forced=tuple(one.forced for _, one in ones),
            versions=tuple(one.version for _, one in ones),
        )


@dataclass(frozen=True, slots=True)
class Node:
    """What a step of a rollout adds to what its parent ends with."""

    piece: Piece
    parent: NodeId | None
    """None for the root alone."""
    reason: End | None = None
    """Why the model stopped; None for what was read, and while more is to come."""
    reward: float | None = None
    exact: bool = True
    """Off: it was said over a thinned context, over keys and values that may have been through a lossy codec, or in
    another mode of the engine than `exact`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A walk from the root to a node, in lists of one length: what a trainer takes."""

    prompt_ids: list[int]
    completion_ids: list[int]
    mask: list[int]
    logprobs: list[float]
    drawn: list[float]
    tempered: list[float]
    forced: list[bool]
    versions: list[int]
    reward: float | None
    reason: End | None
    exact: bool = True
    """Off: some of it was said over a thinned context, over keys and values that may have been through a lossy codec,
    or in another mode than `exact`: its log probabilities are not those of the tokens."""

    @property
    def finished(self) -> bool:
        """Off: it was broken off, or a result stands there that nobody answered."""
        return self.reason in ("stop", "length")

    def lags(self, current: int) -> list[int]:
        """How many versions older than `current` the weights were that said each of the model's tokens."""
        return [current - version for version, said in zip(self.versions, self.mask, strict=True) if said]


class Rollout:
    """A tree of pieces that grows from a prompt. `repr` counts it."""

    def __init__(self, prompt: Sequence[int], *, mode: str = "exact") -> None:
        """`mode`: of the engine that says what grows here. Raises BadRollout for an empty prompt or no such mode."""
        if not prompt:
            raise BadRollout("the prompt is empty: give at least one token, such as the one that begins a text")
        if mode not in get_args(Mode):
            raise BadRollout(f"mode: found {mode!r}; expected one of {', '.join(get_args(Mode))}")
        self.mode = mode
        self._nodes = [Node(Piece.read(prompt), None)]
        self._parents: set[NodeId] = set()

    def add(
        self,
        parent: NodeId,
        piece: Piece,
        *,
        reason: End | None = None,
        reward: float | None = None,
        exact: bool = True,
    ) -> NodeId:
        """Let the tree grow. Raises BadRollout for an unknown parent or reason and a reward that is no number."""
        self._known(parent)
        _check_end(reason, reward)
        self._nodes.append(Node(piece, parent, reason, reward, exact))
        self._parents.add(parent)
        return NodeId(len(self._nodes) - 1)

    def score(self, node: NodeId, reward: float) -> None:
        """Say what the sample that ends at a node earned; a second time replaces the first."""
        _check_end(None, reward)
        self._nodes[node] = replace(self._known(node), reward=reward)

    def node(self, node: NodeId) -> Node:
        """Raises BadRollout for an unknown one."""
        return self._known(node)

    def leaves(self) -> tuple[NodeId, ...]:
        """Where samples end, in the order in which they came; the bare root is no sample."""
        return tuple(NodeId(at) for at in range(1, len(self._nodes)) if at not in self._parents)

    def walk(self, leaf: NodeId) -> tuple[NodeId, ...]:
        """From the root to a node, both included."""
        steps = [leaf]
        while (parent := self._known(steps[-1]).parent) is not None:
            steps.append(parent)
        return tuple(reversed(steps))

    def sample(self, leaf: NodeId) -> Sample:
        """The walk to a node as a trainer takes it; its reason and reward are those of that node."""
        _, *rest = self.walk(leaf)
        pieces = [self._nodes[node].piece for node in rest]
        end = self._nodes[leaf]
        return Sample(
            prompt_ids=list(self._nodes[ROOT].piece.ids),
            completion_ids=[one for piece in pieces for one in piece.ids],
            mask=[one for piece in pieces for one in piece.mask],
            logprobs=[one for piece in pieces for one in piece.logprobs],
            drawn=[one for piece in pieces for one in piece.drawn],
            tempered=[one for piece in pieces for one in piece.tempered],
            forced=[one for piece in pieces for one in piece.forced],
            versions=[one for piece in pieces for one in piece.versions],
            reward=end.reward,
            reason=end.reason,
            exact=all(self._nodes[node].exact for node in rest),
        )

    def samples(self) -> Iterator[Sample]:
        """One for every leaf."""
        return (self.sample(leaf) for leaf in self.leaves())

    @property
    def tokens(self) -> int:
        """Tokens of the tree, each stored once."""
        return sum(len(node.piece) for node in self._nodes)

    @property
    def flat(self) -> int:
        """Tokens of all samples, with what they share counted in each."""
        return sum(len(sample.prompt_ids) + len(sample.completion_ids) for sample in self.samples())

    def to_json(self) -> str:
        """The whole of it as strict JSON; `from_json` gives back an equal one."""
        nodes = [asdict(node) for node in self._nodes]
        written = {"format": FORMAT, "mode": self.mode, "nodes": nodes}
        return json.dumps(written, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Rollout:
        """What `to_json` wrote. Raises BadRollout for anything else, and for a tree that could not have grown."""
        try:
            return cls._grown(json.loads(text))
        except BadRollout:
            raise
        except (ValueError, AttributeError, LookupError, OverflowError, RecursionError, TypeError) as error:
            raise BadRollout(f"this is no rollout as `to_json` writes it: {type(error).__name__}: {error}") from error

    @classmethod
    def _grown(cls, value: Any) -> Rollout:
        if value["format"] != FORMAT:
            raise BadRollout(f"format: found {value['format']!r}; expected {FORMAT!r}")
        first, *others = [_node(node) for node in value["nodes"]] or [Node(Piece(), None)]
        if first.parent is not None or any(first.piece.mask):
            raise BadRollout("node 0: found a parent or tokens of the model; expected the prompt")
        rollout = cls(first.piece.ids, mode=value.get("mode", "exact"))  # older ones were of no other
        _check_end(first.reason, first.reward)
        rollout._nodes[ROOT] = first
        for at, node in enumerate(others, 1):
            if node.parent is None:
                raise BadRollout(f"node {at}: found no parent; expected one of the nodes before it")
            rollout.add(node.parent, node.piece, reason=node.reason, reward=node.reward, exact=node.exact)
        return rollout

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rollout) and (self.mode, self._nodes) == (other.mode, other._nodes)

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __repr__(self) -> str:
        return f"<Rollout {len(self.leaves())} samples, {self.tokens} tokens stored for {self.flat}>"

    def _known(self, node: NodeId) -> Node:
        if not 0 <= node < len(self._nodes):
            raise BadRollout(f"there is no node {node}: this rollout has nodes 0 to {len(self._nodes) - 1}")
        return self._nodes[node]


def _check_log(name: str, value: float, at: int, said: int) -> None:
    if not said and value != 0:  # NaN is not 0 either
        raise BadRollout(f"{name}: found {value} at token {at}, which the model did not say; expected 0")
    if said and not (math.isfinite(value) and value <= SLACK):
        raise BadRollout(
            f"{name}: found {value} at token {at}; expected the logarithm of a probability, finite and not above 0"
        )


def _check_end(reason: End | None, reward: float | None) -> None:
    if reason is not None and reason not in get_args(End):
        raise BadRollout(f"reason: found {reason!r}; expected one of {', '.join(get_args(End))}")
    if reward is not None and not math.isfinite(reward):
        raise BadRollout(f"reward: found {reward}; expected a finite number, or None for a sample nobody scored")


def _node(value: Any) -> Node:
    piece = Piece(**{name: tuple(column) for name, column in value["piece"].items()})
    exact = value.get("exact", True)  # rollouts were written before anything could be lossy
    if not isinstance(exact, bool):
        raise BadRollout(f"exact: found {exact!r}; expected true or false")
    return Node(piece, value["parent"], value["reason"], value["reward"], exact)
