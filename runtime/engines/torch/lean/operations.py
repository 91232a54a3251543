"""What stands between the products of a layer: norms, rotation, activation, and a row's look at its past. In torch.

Each gives a row the same bits in any company.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..pieces import padded

_GATHER = 1 << 16
"""Positions that one batch of rows gathers at most; bounds memory, not results."""

Angles = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines of each row, float32 [rows, dim / 2]."""


@dataclass(frozen=True, slots=True)
class Store:
    """The pages of one layer."""

    k: torch.Tensor
    """[kv_heads, slots, dim]"""
    v: torch.Tensor
    page: int


@dataclass(frozen=True, slots=True)
class Decode:
    """Rows of one token each, and where they look: at positions firsts...stops-1 of their own pages."""

    rows: torch.Tensor
    tables: torch.Tensor
    """int32 [rows, pages]; what is beyond a row's length is not looked at."""
    firsts: torch.Tensor
    stops: torch.Tensor


def norm(rows: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return F.rms_norm(rows, (rows.shape[-1],), weight, eps)


def add_norm(state: torch.Tensor, more: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Add to the state, in place, and give its norm."""
    return norm(state.add_(more), weight, eps)


def gated(gate_up: torch.Tensor) -> torch.Tensor:
    """silu of the first half times the second."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up


def turn_and_write(
    heads: torch.Tensor,
    angles: Angles,
    norms: tuple[torch.Tensor, torch.Tensor, float] | None,
    slots: torch.Tensor,
    store: Store,
) -> torch.Tensor:
    """Norm and turn query and key heads, write keys and values of the first len(slots) rows; gives the queries."""
    query, key, value = turned(heads, angles, norms, len(store.k))
    count = len(slots)
    store.k.index_copy_(1, slots, key[:count].transpose(0, 1))
    store.v.index_copy_(1, slots, value[:count].transpose(0, 1))
    return query


def decode(query: torch.Tensor, store: Store, where: Decode, scale: float) -> torch.Tensor:
    """[rows, heads, dim] for [rows, heads, dim]. Gathered in batches of equal length, which follows from each own."""
    out = torch.empty_like(query)
    spans: dict[int, list[int]] = {}
    lengths = (where.stops - where.firsts).tolist()
    for row, length in enumerate(lengths):
        spans.setdefault(padded(length, store.page), []).append(row)
    for span, rows in spans.items():
        most = max(1, _GATHER // span)
        for at in range(0, len(rows), most):
            some = torch.tensor(rows[at : at + most])
            out[some] = _gathered(query[some], store, where, some, span, scale)
    return out


def turned(
    heads: torch.Tensor, angles: Angles, norms: tuple[torch.Tensor, torch.Tensor, float] | None, kv_heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values [rows, heads, dim] of what a layer's first product gave."""
    count, dim = heads.shape[1] - 2 * kv_heads, heads.shape[2]
    query, key, value = torch.split(heads, [count, kv_heads, kv_heads], 1)
    if norms is not None:
        query = F.rms_norm(query, (dim,), norms[0], norms[2])
        key = F.rms_norm(key, (dim,), norms[1], norms[2])
    both = torch.cat([query, key], 1)
    cos, sin = (each[:, None].to(heads.dtype) for each in angles)
    left, right = both.chunk(2, -1)
    both = torch.cat([left * cos - right * sin, right * cos + left * sin], -1)
    return both[:, :count], both[:, count:], value


def _gathered(
    query: torch.Tensor, store: Store, where: Decode, rows: torch.Tensor, span: int, scale: float
) -> torch.Tensor:
    kv_heads, _, dim = store.k.shape
    lengths = (where.stops - where.firsts)[rows]
    offset = torch.arange(span)
    # Padding repeats a slot of the row itself: 0 times a stranger's NaN would be NaN.
    position = where.firsts[rows, None] + torch.minimum(offset[None], lengths[:, None] - 1)
    slots = where.tables[rows].long().gather(1, position.long() // store.page) * store.page + position % store.page
    hidden = torch.zeros(len(rows), 1, 1, span, dtype=query.dtype)
    hidden.masked_fill_((offset[None] >= lengths[:, None])[:, None, None], float("-inf"))
    k, v = (
        side.index_select(1, slots.view(-1)).view(kv_heads, len(rows), span, dim).transpose(0, 1)
        for side in (store.k, store.v)
    )
    shared = query.view(len(rows), kv_heads, -1, dim)
    return F.scaled_dot_product_attention(shared, k, v, attn_mask=hidden, scale=scale).reshape(len(rows), -1, dim)
