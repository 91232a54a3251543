"""Layers in groups, each with a window of its own: what each keeps of a context, and how much of one all can serve.

A model whose layers do not all look equally far back has its layers divided into groups of one size. A page holds the
layers of one group, so all pages are alike and come from one pool. A layer with a window needs of a context only what
the next token sees: a hit is as long as every group can serve, and what lies left of a window may be gone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .hashes import BlockHash, of_group
from .seal import Seal
from .snapshot import PageId, Prefix

NOWHERE = PageId(-1)
"""In the place of a page that was given back, because no window reaches it any more."""


@dataclass(frozen=True, slots=True)
class Group:
    """Layers that lie in one page, and how far they look back."""

    layers: tuple[int, ...] = ()
    window: int | None = None
    """Positions that a token sees, its own among them; None for all."""

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 2:
            raise ValueError(f"window: found {self.window}; one that sees nothing but itself needs no cache: give 2")

    def first(self, length: int, page: int) -> int:
        """The first block that whoever goes on after so many tokens still looks at."""
        return 0 if self.window is None else max(0, length - self.window + 1) // page

    def most(self, stride: int, page: int) -> int | None:
        """Pages that a context has at most, which gives back what it can after every `stride` tokens; None: no end."""
        return None if self.window is None else -(-(self.window + stride - 2) // page) + 1


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of a model. Without an argument it is a model of one kind of layer, which sees all of its past."""

    each: tuple[Group, ...] = (Group(),)
    stride: int = 512
    """Contexts with windows take pages for so many tokens at a time, and give back what lies left between them."""

    def __post_init__(self) -> None:
        if not self.each or self.stride < 1:
            raise ValueError(f"found {len(self.each)} groups and a stride of {self.stride}: there is one of each")

    def __len__(self) -> int:
        return len(self.each)

    @property
    def plain(self) -> bool:
        """Nothing is to be agreed on, and nothing ever given back while a context grows."""
        return len(self.each) == 1 and self.each[0].window is None

    def places(self) -> dict[int, tuple[int, int]]:
        """The group in which each layer lies, and its place there."""
        each = enumerate(self.each)
        return {layer: (number, place) for number, group in each for place, layer in enumerate(group.layers)}

    def roots(self, root: BlockHash) -> tuple[BlockHash, ...]:
        """Under which the blocks of each group are named; those of a single group under the context's own root."""
        return (root,) if len(self.each) == 1 else tuple(of_group(root, group.layers) for group in self.each)

    def seals(self, seal: Seal) -> tuple[Seal, ...]:
        """With which the blocks of each group are sealed, given the one for all layers; a single group has that.

        `layers` are as many as a page has room for, though the last group of a kind may have fewer.
        """
        if len(self.each) == 1:
            return (seal,)
        layers = max(len(group.layers) for group in self.each)
        return tuple(replace(seal, layers=layers, group=",".join(map(str, group.layers))) for group in self.each)

    def known(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """As much of a conversation as whoever goes on with it wants to find: the last token is computed in any case.

        With windows that one looks at a token more than the next one, which may lie in an earlier block: there only
        what comes before it is of use.
        """
        return tokens if self.plain else tokens[:-1]

    def spans(self, length: int, page: int) -> tuple[range, ...]:
        """The blocks of each group that a context of so many tokens keeps."""
        return tuple(range(group.first(length, page), -(-length // page)) for group in self.each)

    def blocks(self, length: int, page: int) -> int:
        """How many those are."""
        return sum(map(len, self.spans(length, page)))

    def split(self, pages: Sequence[PageId], length: int, page: int) -> tuple[Sequence[PageId], ...]:
        """The pages of a context of so many tokens, which lie one group behind the other, by group."""
        parts, at = [], 0
        for span in self.spans(length, page):
            parts.append(pages[at : at + len(span)])
            at += len(span)
        return tuple(parts)

    def head(self, prefix: Prefix, pages: int, page: int) -> tuple[tuple[int, ...], tuple[PageId, ...]]:
        """As much of a prefix as can be gone on from when only so many of its first pages are to be had.

        With windows that is all or nothing: what an earlier place needs is not among its pages.
        """
        if self.plain or pages == len(prefix.pages):
            return prefix.tokens[: pages * page] if self.plain else prefix.tokens, prefix.pages[:pages]
        return (), ()

    def stretch(self, tokens: int) -> int:
        """For how many of the next `tokens` pages are taken at once."""
        return tokens if self.plain else min(tokens, self.stride)

    def peak(self, known: int, whole: int, page: int) -> int:
        """Pages that a context wants at most besides those full ones that it has, to grow from `known` to `whole`."""
        blocks = -(-whole // page) - known // page
        total = 0
        for group in self.each:
            most = group.most(self.stride, page)
            held = known // page - group.first(known, page)
            total += blocks if most is None else min(blocks, most - held)
        return total

    def growth(self, length: int, more: float, page: int) -> float:
        """Pages, and parts of one, by which a context of so many tokens grows with so many more."""
        total = 0.0
        for group in self.each:
            most = group.most(self.stride, page)
            rest = math.inf if most is None else max(0, most - -(-length // page))
            total += min(more / page, rest)
        return total

    def agreed(self, have: Sequence[Sequence[int]], page: int) -> int:
        """The longest beginning of a context that every group can serve.

        `have` says for each group and block how many tokens are there, from the block's first on; blocks that are
        not mentioned are not there. Costs a step for each block and group.
        """
        best, since = 0, [0] * len(self.each)  # of the whole blocks that come before, one after the other, the first
        for block in range(min(map(len, have))):
            tokens = min(row[block] for row in have)
            length = block * page + tokens
            reach = zip(self.each, since, strict=True)
            if tokens and all(first <= group.first(length, page) for group, first in reach):
                best = length
            for number, row in enumerate(have):
                if row[block] < page:
                    since[number] = block + 1
        return best
