"""Describes a model, and each of its steps, to the library of `native.py`, as `kernels/step.cpp` wants it."""

from __future__ import annotations

import ctypes
import weakref
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .....kvstore import Groups
from .....kvstore.pages import Pages
from ..pieces import Piece, rows_wanted
from .native import Native
from .panels import Panels, Told

_INT, _LONG, _FLOAT, _POINTER = ctypes.c_int32, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
_WEIGHTS = "qkv", "out", "gate_up", "down"


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, _POINTER) for name in ("enter", "middle", "query_norm", "key_norm")),
        *((name, Told) for name in _WEIGHTS),
        ("group", _INT),
        ("window", _INT),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        *((name, _INT) for name in ("layers", "hidden", "heads", "kv_heads", "dim", "groups", "few", "unused")),
        ("eps", _FLOAT),
        ("turn_scale", _FLOAT),
        *((name, _POINTER) for name in ("embed", "last", "turns")),
        ("each", ctypes.POINTER(_Layer)),
        ("head", Told),
    ]


class _Piece(ctypes.Structure):
    _fields_ = [*((name, _INT) for name in ("row", "count", "start", "skip")), ("table", _LONG)]


class _Step(ctypes.Structure):
    _fields_ = [
        *((name, _INT) for name in ("rows", "pieces", "wanted", "page", "threads", "unused")),
        ("slots", _LONG),
        *((name, _POINTER) for name in ("tokens", "tables", "want", "each", "keys", "values", "logits")),
    ]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's weights."""

    enter: torch.Tensor
    norms: tuple[torch.Tensor, torch.Tensor, float] | None
    middle: torch.Tensor
    weights: tuple[Panels, Panels, Panels, Panels]
    """Query, key and value products in one; output; gate and up; down."""


@dataclass(frozen=True, slots=True)
class Weights:
    """All of a network, where it lies."""

    embed: torch.Tensor
    layers: tuple[Layer, ...]
    last: torch.Tensor
    head: Panels
    turns: torch.Tensor
    """Angles of a step of one position, float32 [dim / 2]."""
    turn_scale: float
    eps: float
    heads: int
    kv_heads: int
    few: int
    """Rows of a step up to which blocks are read, where there are some."""


class Steps:
    """Runs steps of one model. They share nothing but its weights, so threads may run several at once."""

    def __init__(self, weights: Weights, groups: Groups, library: Native) -> None:
        self._weights, self._groups, self._library = weights, groups, library
        self._places = [groups.places()[layer] for layer in range(len(weights.layers))]
        self._told: _Model | None = None
        self._pages: tuple[Any, Any, Any] = (lambda: None), None, None

    def run(self, pieces: Sequence[Piece], pages: Pages) -> torch.Tensor:
        """Float32 logits [wanted rows, vocab]. IndexError, and nothing is written, for a page that is not there."""
        count, page = len(self._groups), pages.shape.page
        tables, tokens, parts, row = array("i"), array("i"), [], 0
        for piece in pieces:
            used = -(-piece.stop // page) * count
            if len(piece.table) < used:
                held = f"{len(piece.table)} pages of {page}"
                raise IndexError(
                    f"a piece ends at {piece.stop} and its table has {held}: take more pages before the step"
                )
            parts.append(_Piece(row, len(piece.tokens), piece.start, piece.skip, len(tables)))
            tables.extend(piece.table[:used])
            tokens.extend(piece.tokens)
            row += len(piece.tokens)
        want = array("i", rows_wanted(pieces))
        logits = torch.empty(len(want), self._weights.head.told.outputs)
        keys, values = self._pointers(pages)
        each = (_Piece * len(parts))(*parts)
        lists = (array_.buffer_info()[0] for array_ in (tokens, tables, want))
        sizes = row, len(parts), len(want), page, torch.get_num_threads(), 0
        ends = ctypes.addressof(each), ctypes.addressof(keys), ctypes.addressof(values), logits.data_ptr()
        step = _Step(*sizes, pages.k[0].shape[1], *lists, *ends)
        if self._told is None:
            self._told = self._model()
        if not self._library.step(self._told, step, self._weights.embed.dtype):
            raise IndexError(f"a piece's table names pages that are not here: they are 0 to {pages.room - 1}")
        return logits

    def changed(self) -> None:
        """Some weight was told other numbers."""
        self._told = None

    def _pointers(self, pages: Pages) -> tuple[Any, Any]:
        """Of every layer's keys and values."""
        known, keys, values = self._pages
        if known() is not pages:
            many = _POINTER * len(self._places)
            keys, values = (many(*(side[place].data_ptr() for _, place in self._places)) for side in (pages.k, pages.v))
            self._pages = weakref.ref(pages), keys, values
        return keys, values

    def _model(self) -> _Model:
        own = self._weights
        layers = (_Layer * len(own.layers))(*map(self._layer, range(len(own.layers))))
        dim, hidden = 2 * len(own.turns), own.embed.shape[1]
        sizes = len(layers), hidden, own.heads, own.kv_heads, dim, len(self._groups), own.few, 0
        ends = own.embed.data_ptr(), own.last.data_ptr(), own.turns.data_ptr()
        return _Model(*sizes, own.eps, own.turn_scale, *ends, layers, own.head.told)

    def _layer(self, index: int) -> _Layer:
        layer, (number, _) = self._weights.layers[index], self._places[index]
        norms = (None, None) if layer.norms is None else (layer.norms[0].data_ptr(), layer.norms[1].data_ptr())
        told = (weight.told for weight in layer.weights)
        window = self._groups.each[number].window or 0
        return _Layer(layer.enter.data_ptr(), layer.middle.data_ptr(), *norms, *told, number, window)
