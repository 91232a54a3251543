"""Attention over paged blocks, as a transformers attention function.

A step packs tokens of many turns on one axis. Keys and values of the new tokens are written to their slots first; then
every piece attends to its own pages. Pieces of one token (decode) are gathered into padded batches, longer pieces
(prefill) run in tiles of queries over their gathered prefix. CPU and CUDA take the same way.

What is promised. A piece's result depends on its tokens and on what lies in its own pages: not on which pages those
are, nor on what others left in them, not even if that is NaN. How far a decode row is padded follows from its own
length alone, so on the CPU attention gives a row the same bits in any batch. A step of a single row is run as two
equal rows, because matrix products of one row round otherwise than those of several. Together with bfloat16 products,
whose rows were equal to the bit for 2 to 32 rows on the CPUs tried (AVX-512 and AMX; float32 products are not, and
neither are larger steps on AMX), a decode step then does not depend on who else decodes. Keys and values that were
kept are read, never computed again, so holding, resuming and forking change nothing at all. Computing a prompt in
other chunks agrees within the tolerances of the tests, not to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface

from ....kvstore import Group, Groups
from ....kvstore.pages import Pages
from ...errors import ModelUnsupported
from .pieces import Piece, Step, earliest, padded

NAME = "sostenuto_paged"
_TILE = 512
"""Queries of a prefill tile; bounds the mask, and the part of a tile that is computed only to be masked."""
_GATHER = 1 << 16
"""Positions that one batch of decode rows gathers at most; bounds memory, not results."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What a piece is to one group of layers."""

    table: Sequence[int]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Tile:
    """Queries `rows`, all of which may see something of the gathered positions `keys`."""

    rows: slice
    keys: slice
    mask: torch.Tensor  # [rows, keys], 0 or -inf


@dataclass(frozen=True, slots=True)
class _Prefill:
    """One piece: its gathered positions, and its queries in tiles."""

    slots: torch.Tensor
    tiles: tuple[_Tile, ...]


@dataclass(frozen=True, slots=True)
class _Decode:
    """Rows of one token each that gather equally many positions."""

    rows: torch.Tensor
    slots: torch.Tensor  # [rows * span]
    mask: torch.Tensor  # [rows, 1, 1, span], 0 or -inf


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the layers of one group write and read in a step."""

    slots: torch.Tensor
    """Where the keys and values of each packed token go: int64 [tokens]."""
    prefills: tuple[_Prefill, ...]
    decodes: tuple[_Decode, ...]


class Plan:
    """Index tensors of one step, made once and used by every layer."""

    def __init__(self, pieces: Sequence[Piece], pages: Pages, groups: Groups) -> None:
        parts = [torch.arange(piece.positions.start, piece.positions.stop) for piece in pieces]
        self.positions = torch.cat(parts).to(pages.device)
        """The place of each packed token in its own sequence: int64 [tokens]."""
        self._pages = pages
        self._groups = [
            _plan(pieces, pages, group, slice(at, None, len(groups))) for at, group in enumerate(groups.each)
        ]
        self._places = groups.places()

    def attend(
        self, layer: int, heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor], scale: float, given: dict[str, Any]
    ) -> torch.Tensor:
        """Write what is new, then attend. Rows beyond the plan's (a doubled single row) repeat the first."""
        query, key, value = heads
        number, place = self._places[layer]
        slots, count = self._groups[number].slots, len(self.positions)
        self._pages.k[place].index_copy_(1, slots, key[:, :count])
        self._pages.v[place].index_copy_(1, slots, value[:, :count])
        return self.look(layer, query, scale)

    def look(self, layer: int, query: torch.Tensor, scale: float) -> torch.Tensor:
        """Attend to what lies in the pages, and write nothing."""
        number, place = self._places[layer]
        group, count = self._groups[number], len(self.positions)
        keys, values = self._pages.k[place], self._pages.v[place]
        out = query.new_empty(query.shape[1], query.shape[0], query.shape[2])
        for decode in group.decodes:
            out[decode.rows] = _decode(query, (keys, values), decode, scale)
        for prefill in group.prefills:
            _prefill(query, (keys, values), prefill, out, scale)
        out[count:] = out[:1]
        return out


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    paged: Step | None = None,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """The function transformers calls in each layer: query [1, heads, rows, dim], result [1, rows, heads, dim]."""
    if paged is None:
        raise ModelUnsupported(
            f"{type(module).__name__} was run without a step: either its model does not hand keyword arguments on "
            "to its attention, and cannot run over pages, or it was called other than by Model.forward"
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    given["mask"] = attention_mask
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    return paged.attend(layer, (query[0], key[0], value[0]), scale, given)[None], None


def register() -> None:
    """Make the function known to transformers under NAME; masks are ours, so theirs is none."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)


def _plan(pieces: Sequence[Piece], pages: Pages, group: Group, own: slice) -> _Plan:
    """`own` are the group's pages in each piece's table."""
    single: list[tuple[int, _Part]] = []
    prefills: list[_Prefill] = []
    written: list[torch.Tensor] = []
    row = 0
    for piece in pieces:
        part = _Part(piece.table[own], piece.start, piece.stop)
        written.append(pages.slots(part.table, part.start, part.stop))
        if len(piece.tokens) == 1:
            single.append((row, part))
        else:
            prefills.append(_tiles(part, row, pages, group.window))
        row += len(piece.tokens)
    slots = torch.cat(written).to(pages.device)
    return _Plan(slots, tuple(prefills), tuple(_groups(single, pages, group.window)))


def _tiles(piece: _Part, row: int, pages: Pages, window: int | None) -> _Prefill:
    count, low = piece.stop - piece.start, earliest(piece.start, window)
    edge = _edge(min(_TILE, count), piece.stop - low, window).to(_dtype(pages))
    edge = edge.to(pages.device)
    tiles = []
    for first in range(0, count, _TILE):
        stop = min(first + _TILE, count)
        keys = slice(earliest(piece.start + first, window) - low, piece.start + stop - low)
        mask = edge[first - stop :, edge.shape[1] - (keys.stop - keys.start) :]
        tiles.append(_Tile(slice(row + first, row + stop), keys, mask))
    return _Prefill(pages.slots(piece.table, low, piece.stop).to(pages.device), tuple(tiles))


def _edge(rows: int, columns: int, window: int | None) -> torch.Tensor:
    """0 where a query may look and -inf where not: the last of `columns` positions is the last query's own.

    What is visible depends on distances alone, so every tile of a piece is a corner of this one mask.
    """
    distance = torch.arange(columns - rows, columns)[:, None] - torch.arange(columns)[None]
    hidden = distance < 0
    if window is not None:
        hidden |= distance >= window
    return torch.zeros(rows, columns).masked_fill_(hidden, float("-inf"))


def _groups(single: Sequence[tuple[int, _Part]], pages: Pages, window: int | None) -> list[_Decode]:
    spans: dict[int, list[tuple[int, torch.Tensor]]] = {}
    for row, piece in single:
        slots = pages.slots(piece.table, earliest(piece.start, window), piece.stop)
        spans.setdefault(padded(len(slots), pages.shape.page), []).append((row, slots))
    groups = []
    for span, rows in sorted(spans.items()):
        most = max(1, _GATHER // span)
        groups += [_group(rows[at : at + most], span, pages) for at in range(0, len(rows), most)]
    return groups


def _group(rows: Sequence[tuple[int, torch.Tensor]], span: int, pages: Pages) -> _Decode:
    slots = torch.empty(len(rows), span, dtype=torch.int64)
    mask = torch.zeros(len(rows), 1, 1, span, dtype=_dtype(pages))
    for index, (_, own) in enumerate(rows):
        slots[index, : len(own)] = own
        # Padding repeats a slot of the row itself: 0 times a stranger's NaN would be NaN.
        slots[index, len(own) :] = own[-1]
        mask[index, ..., len(own) :] = float("-inf")
    where = torch.tensor([row for row, _ in rows])
    return _Decode(where.to(pages.device), slots.view(-1).to(pages.device), mask.to(pages.device))


def _decode(
    query: torch.Tensor, store: tuple[torch.Tensor, torch.Tensor], group: _Decode, scale: float
) -> torch.Tensor:
    """[rows, heads, dim]. Heads that share keys become the query axis, so that keys are read once for all of them."""
    kv_heads, _, dim = store[0].shape
    rows = len(group.rows)
    q = query[:, group.rows].view(kv_heads, -1, rows, dim).permute(2, 0, 1, 3)
    k, v = (side.index_select(1, group.slots).view(kv_heads, rows, -1, dim).transpose(0, 1) for side in store)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=group.mask, scale=scale).reshape(rows, -1, dim)


def _prefill(
    query: torch.Tensor,
    store: tuple[torch.Tensor, torch.Tensor],
    piece: _Prefill,
    out: torch.Tensor,
    scale: float,
) -> None:
    """Fill the piece's rows of `out`. Heads that share keys become the head axis, key heads the batch axis."""
    kv_heads, _, dim = store[0].shape
    shared = query.shape[0] // kv_heads
    k, v = (side.index_select(1, piece.slots)[:, None].expand(-1, shared, -1, -1) for side in store)
    for tile in piece.tiles:
        q = query[:, tile.rows].reshape(kv_heads, shared, -1, dim)
        seen = k[:, :, tile.keys], v[:, :, tile.keys]
        done = F.scaled_dot_product_attention(q, *seen, attn_mask=tile.mask, scale=scale)
        out[tile.rows] = done.permute(2, 0, 1, 3).flatten(1, 2)


def _dtype(pages: Pages) -> torch.dtype:
    return pages.k[0].dtype
