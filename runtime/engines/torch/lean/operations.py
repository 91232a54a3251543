"""What stands between the products of a layer: norms, rotation, activation, and a row's look at its past. In torch.

Each gives a row the same bits in any company.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

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
class _Gather:
    """Rows that gather equally many positions."""

    rows: torch.Tensor
    slots: torch.Tensor  # [rows * span]
    hidden: torch.Tensor  # [rows, 1, 1, span], 0 or -inf


@dataclass(frozen=True, slots=True)
class Decode:
    """Rows of one token each, and where they look: at positions firsts...stops-1 of their own pages."""

    rows: torch.Tensor
    """On the device of the pages; all else on the CPU."""
    tables: torch.Tensor
    """int32 [rows, pages]; what is beyond a row's length is not looked at."""
    firsts: torch.Tensor
    stops: torch.Tensor
    gathers: list[_Gather] = field(default_factory=list)
    """What the layers of a step have in common: made for the first of them, where they are torch's."""


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
    if not where.gathers:
        where.gathers.extend(_gathers(where, store.page, query))
    out = torch.empty_like(query)
    for each in where.gathers:
        out[each.rows] = _look(query[each.rows], store, each, scale)
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


def _gathers(where: Decode, page: int, like: torch.Tensor) -> Iterator[_Gather]:
    spans: dict[int, list[int]] = {}
    for row, length in enumerate((where.stops - where.firsts).tolist()):
        spans.setdefault(padded(length, page), []).append(row)
    for span, rows in spans.items():
        most = max(1, _GATHER // span)
        for at in range(0, len(rows), most):
            yield _gather(where, torch.tensor(rows[at : at + most]), span, page, like)


def _gather(where: Decode, rows: torch.Tensor, span: int, page: int, like: torch.Tensor) -> _Gather:
    lengths = (where.stops - where.firsts)[rows]
    offset = torch.arange(span)
    # Padding repeats a slot of the row itself: 0 times a stranger's NaN would be NaN.
    position = where.firsts[rows, None] + torch.minimum(offset[None], lengths[:, None] - 1)
    slots = where.tables[rows].long().gather(1, position.long() // page) * page + position % page
    hidden = torch.zeros(len(rows), 1, 1, span, dtype=like.dtype)
    hidden.masked_fill_((offset[None] >= lengths[:, None])[:, None, None], float("-inf"))
    return _Gather(*(each.to(like.device) for each in (rows, slots.view(-1), hidden)))


def _look(query: torch.Tensor, store: Store, at: _Gather, scale: float) -> torch.Tensor:
    kv_heads, _, dim = store.k.shape
    k, v = (
        side.index_select(1, at.slots).view(kv_heads, len(query), -1, dim).transpose(0, 1)
        for side in (store.k, store.v)
    )
    shared = query.view(len(query), kv_heads, -1, dim)
    return F.scaled_dot_product_attention(shared, k, v, attn_mask=at.hidden, scale=scale).reshape(len(query), -1, dim)
