"""Attention over paged blocks, as a transformers attention function.

A step packs tokens of many turns on one axis. Keys and values of the new tokens are written to their slots first;
then every piece attends to its own pages. Pieces of one token (decode) are gathered into padded batches of similar
length, longer pieces (prefill) run one by one over their gathered prefix.

What is promised: a piece's result depends on its own tokens and the pages behind them, not on which pages those are.
Bit equality over other batch compositions is not promised here (see `docs/engines.md` for tolerances).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface

from ....kvstore.pages import Pages
from ...errors import ModelUnsupported

NAME = "sostenuto_paged"
_WASTE = 2
"""Decode rows share a batch while the longest has at most this many times the positions of the shortest."""
_BEYOND = ("softcap", "s_aux", "sinks", "position_bias", "indices", "block_indices")
"""What some families ask of attention and this one does not do."""


@dataclass(frozen=True, slots=True)
class Piece:
    """`tokens` of one turn at positions `start`...; its page i covers positions i*page..(i+1)*page-1."""

    table: Sequence[int]
    start: int
    tokens: Sequence[int]
    wants: bool
    """The logits of its last token are needed."""

    @property
    def stop(self) -> int:
        return self.start + len(self.tokens)


@dataclass(frozen=True, slots=True)
class _Prefill:
    first: int
    count: int
    start: int
    slots: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Decode:
    rows: torch.Tensor
    slots: torch.Tensor  # [rows, longest]
    lengths: torch.Tensor


@dataclass(frozen=True, slots=True)
class Plan:
    """Index tensors of one step, made once and used by every layer."""

    pages: Pages
    slots: torch.Tensor
    positions: torch.Tensor
    prefills: tuple[_Prefill, ...]
    decodes: tuple[_Decode, ...]


def plan(pieces: Sequence[Piece], pages: Pages, device: torch.device) -> Plan:
    """The indices for a step of these pieces, packed in their order."""
    size = pages.shape.page
    written: list[torch.Tensor] = []
    positions: list[torch.Tensor] = []
    prefills: list[_Prefill] = []
    single: list[tuple[int, int, torch.Tensor]] = []
    row = 0
    for piece in pieces:
        table = torch.tensor(piece.table[: -(-piece.stop // size)], dtype=torch.long)
        slots = (table[:, None] * size + torch.arange(size)).reshape(-1)[: piece.stop]
        written.append(slots[piece.start :])
        positions.append(torch.arange(piece.start, piece.stop))
        if len(piece.tokens) == 1:
            single.append((piece.stop, row, slots))
        else:
            prefills.append(_Prefill(row, len(piece.tokens), piece.start, slots.to(device)))
        row += len(piece.tokens)
    return Plan(
        pages,
        torch.cat(written).to(device),
        torch.cat(positions).to(device),
        tuple(prefills),
        tuple(_decode(group, device) for group in _similar(single)),
    )


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    paged: Plan | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """The function transformers calls in each layer: query [1, heads, T, dim], result [1, T, heads, dim]."""
    if paged is None:
        raise RuntimeError("paged attention was called outside of a step: use Model.forward")
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    keys, values = paged.pages.k[layer], paged.pages.v[layer]
    _refuse_beyond(rest, attention_mask)
    if not key.shape[1::2] == value.shape[1::2] == (keys.shape[0], keys.shape[2]):
        found = f"keys {tuple(key.shape[1::2])} and values {tuple(value.shape[1::2])}"
        raise ModelUnsupported(f"makes {found} (heads, size) where pages have {tuple(keys.shape[::2])}")
    keys.index_copy_(1, paged.slots, key[0].to(keys.dtype))
    values.index_copy_(1, paged.slots, value[0].to(values.dtype))
    heads, total, dim = query.shape[1:]
    scale = scaling if scaling is not None else dim**-0.5
    out = query.new_empty(total, heads, dim)
    for piece in paged.prefills:
        part = query[:, :, piece.first : piece.first + piece.count]
        mask = _causal(piece, sliding_window, query.device)
        k, v = keys.index_select(1, piece.slots)[None], values.index_select(1, piece.slots)[None]
        done = F.scaled_dot_product_attention(
            part, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=heads != k.shape[1]
        )
        out[piece.first : piece.first + piece.count] = done[0].transpose(0, 1)
    for group in paged.decodes:
        out[group.rows] = _decode_rows(query, keys, values, group, scale, sliding_window)
    return out[None], None


def register() -> None:
    """Make the function known to transformers under NAME; masks are ours, so theirs is none."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)


def _refuse_beyond(asked: dict[str, Any], mask: torch.Tensor | None) -> None:
    beyond = [name for name in _BEYOND if asked.get(name) is not None]
    if mask is not None:
        beyond.append("attention_mask")
    if beyond:
        raise ModelUnsupported(f"asks for {', '.join(beyond)}, which our attention does not do")


def _decode_rows(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, group: _Decode, scale: float, window: int | None
) -> torch.Tensor:
    """[rows, heads, dim]: each row over its own positions. The heads of a group become the query axis."""
    rows, longest = group.slots.shape
    kv_heads, _, dim = keys.shape
    heads = query.shape[1]
    flat = group.slots.reshape(-1)
    k = keys.index_select(1, flat).view(kv_heads, rows, longest, dim).transpose(0, 1)
    v = values.index_select(1, flat).view(kv_heads, rows, longest, dim).transpose(0, 1)
    q = query[0][:, group.rows].reshape(kv_heads, heads // kv_heads, rows, dim).permute(2, 0, 1, 3)
    at = torch.arange(longest, device=query.device)[None]
    seen = at < group.lengths[:, None]
    if window is not None:
        seen = seen & (at >= group.lengths[:, None] - window)
    done = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None], scale=scale)
    return done.reshape(rows, heads, dim)


def _causal(piece: _Prefill, window: int | None, device: torch.device) -> torch.Tensor | None:
    """None when plain causal attention is right: nothing before the piece, and no window."""
    if piece.start == 0 and window is None:
        return None
    at = torch.arange(piece.start + piece.count, device=device)
    own = at[piece.start :, None]
    seen = at[None] <= own
    return seen & (at[None] > own - window) if window is not None else seen


def _similar(rows: list[tuple[int, int, torch.Tensor]]) -> list[list[tuple[int, int, torch.Tensor]]]:
    groups: list[list[tuple[int, int, torch.Tensor]]] = []
    for row in sorted(rows, key=lambda row: row[0]):
        if groups and row[0] <= _WASTE * groups[-1][0][0] + 64:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _decode(group: list[tuple[int, int, torch.Tensor]], device: torch.device) -> _Decode:
    lengths = torch.tensor([length for length, _, _ in group])
    slots = torch.zeros(len(group), int(lengths.max()), dtype=torch.long)
    for index, (length, _, own) in enumerate(group):
        slots[index, :length] = own
    rows = torch.tensor([row for _, row, _ in group])
    return _Decode(rows.to(device), slots.to(device), lengths.to(device))
