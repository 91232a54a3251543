"""Attention of the lean path: what a step writes to its pages and reads of them, with the same bits in any company.

A row of a prompt is computed in a tile of its 64 neighbours, which stands at a multiple of 64 in its sequence and is
filled up with nothing where the step has less: so its products have the same size however a prompt is cut into
chunks. A row of its own (decode) reads its past in parts of fixed length, or as far as its own length says. Neither
depends on which pages those are, on what others left in them, or on who else is in the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .....kvstore import Groups
from .....kvstore.pages import Pages
from ..pieces import Piece, earliest
from . import operations
from .operations import Angles, Decode, Store

TILE = 64
"""Queries of a tile."""


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A piece of several tokens, in one group of layers."""

    rows: slice
    slots: torch.Tensor
    """Of its keys and values, from the first position that its first tile may see to the last tile's end."""
    hidden: torch.Tensor
    """[queries of a tile, as many positions as any tile sees], 0 or -inf."""
    low: int
    start: int


@dataclass(frozen=True, slots=True)
class _Part:
    """What a step is to one group of layers."""

    slots: torch.Tensor
    """Where the keys and values of each packed token go."""
    decode: Decode | None
    prompts: tuple[_Prompt, ...]
    window: int | None


@dataclass(frozen=True, slots=True)
class Manner:
    """What all steps of a model have in common."""

    groups: Groups
    shared: int
    """Query heads that have keys and values in common."""


class Plan:
    """Index tensors of one step, made once and used by every layer."""

    def __init__(self, pieces: Sequence[Piece], pages: Pages, manner: Manner) -> None:
        parts = [torch.arange(piece.positions.start, piece.positions.stop) for piece in pieces]
        self.positions = torch.cat(parts).to(pages.device)
        """The place of each packed token in its own sequence: int64 [tokens]."""
        self._pages = pages
        self._places = manner.groups.places()
        self._parts = [_part(pieces, pages, manner, number) for number in range(len(manner.groups))]

    def attend(
        self,
        layer: int,
        heads: torch.Tensor,
        angles: Angles,
        norms: tuple[torch.Tensor, torch.Tensor, float] | None,
    ) -> torch.Tensor:
        """Heads [rows, query heads then key heads then value heads, dim] are turned, written and looked for.

        Gives [rows, query heads, dim]. Rows beyond the plan's (a row that was doubled) are not looked for.
        """
        number, place = self._places[layer]
        part, store = self._parts[number], Store(self._pages.k[place], self._pages.v[place], self._pages.shape.page)
        query = operations.turn_and_write(heads, angles, norms, part.slots, store)
        out = torch.zeros_like(query)
        scale = float(query.shape[-1] ** -0.5)
        if part.decode is not None:
            out[part.decode.rows] = operations.decode(query[part.decode.rows], store, part.decode, scale)
        for prompt in part.prompts:
            out[prompt.rows] = _prompt(query[prompt.rows], store, prompt, part.window, scale)
        return out


def _part(pieces: Sequence[Piece], pages: Pages, manner: Manner, number: int) -> _Part:
    """`number` is the group of layers."""
    own, window = slice(number, None, len(manner.groups)), manner.groups.each[number].window
    written: list[torch.Tensor] = []
    single: list[tuple[int, Piece]] = []
    prompts: list[_Prompt] = []
    row = 0
    for piece in pieces:
        table = piece.table[own]
        written.append(pages.slots(table, piece.start, piece.stop))
        if len(piece.tokens) == 1:
            single.append((row, piece))
        else:
            low = _floor(earliest(_floor(piece.start), window))
            known = earliest(piece.start, window)
            slots = pages.slots(table, known, piece.stop)
            # Filled up with slots of the piece itself: what a mask hides must be no stranger's NaN.
            head, tail = known - low, -piece.stop % TILE
            slots = torch.cat([slots[:1].expand(head), slots, slots[-1:].expand(tail)])
            end = _floor(piece.stop + TILE - 1)
            hidden = _hidden(end - _floor(earliest(end - TILE, window)), window, manner.shared).to(pages.k[0].dtype)
            rows = slice(row, row + len(piece.tokens))
            prompts.append(_Prompt(rows, slots.to(pages.device), hidden.to(pages.device), low, piece.start))
        row += len(piece.tokens)
    decode = None if not single else _decode(single, pages, own, window)
    return _Part(torch.cat(written).to(pages.device), decode, tuple(prompts), window)


def _decode(single: Sequence[tuple[int, Piece]], pages: Pages, own: slice, window: int | None) -> Decode:
    page = pages.shape.page
    most = max(-(-piece.stop // page) for _, piece in single)
    tables = torch.zeros(len(single), most, dtype=torch.int32)
    for at, (_, piece) in enumerate(single):
        held = piece.table[own][: -(-piece.stop // page)]
        tables[at, : len(held)] = torch.tensor(held, dtype=torch.int32)
    rows = torch.tensor([row for row, _ in single]).to(pages.device)
    firsts = torch.tensor([earliest(piece.start, window) for _, piece in single], dtype=torch.int32)
    stops = torch.tensor([piece.stop for _, piece in single], dtype=torch.int32)
    return Decode(rows, tables, firsts, stops)


def _prompt(query: torch.Tensor, store: Store, prompt: _Prompt, window: int | None, scale: float) -> torch.Tensor:
    """[rows, heads, dim] of a piece. Query heads that share keys are rows of one product."""
    count, heads, dim = query.shape
    kv_heads = len(store.k)
    keys, values = store.k.index_select(1, prompt.slots)[None], store.v.index_select(1, prompt.slots)[None]
    ahead, tiles = prompt.start % TILE, -(-(prompt.start % TILE + count) // TILE)
    padded = query.new_zeros(tiles * TILE, heads, dim)
    padded[ahead : ahead + count] = query
    shared = padded.view(tiles, 1, TILE, kv_heads, -1, dim).permute(0, 1, 3, 4, 2, 5).flatten(3, 4)
    done = []
    for at in range(tiles):
        last = _floor(prompt.start) + (at + 1) * TILE
        first = _floor(earliest(last - TILE, window))
        seen = slice(first - prompt.low, last - prompt.low)
        hidden = prompt.hidden[:, first - last :]
        done.append(
            F.scaled_dot_product_attention(
                shared[at], keys[:, :, seen], values[:, :, seen], attn_mask=hidden, scale=scale
            )
        )
    whole = torch.stack(done).view(tiles, kv_heads, -1, TILE, dim).permute(0, 3, 1, 2, 4)
    return whole.reshape(tiles * TILE, heads, dim)[ahead : ahead + count]


def _hidden(span: int, window: int | None, shared: int) -> torch.Tensor:
    """0 where a query of a tile may look and -inf where not: the last of `span` positions is its last query's own.

    What is visible depends on distances alone, so every tile of a piece has the right side of this one mask.
    """
    distance = torch.arange(span - TILE, span)[:, None] - torch.arange(span)[None]
    hidden = distance < 0
    if window is not None:
        hidden |= distance >= window
    return torch.zeros(TILE, span).masked_fill_(hidden, float("-inf")).repeat(shared, 1)


def _floor(position: int) -> int:
    return position // TILE * TILE
