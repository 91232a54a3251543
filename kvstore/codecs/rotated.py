"""Three or four bits a number: every vector is turned at random, and its coordinates are then rounded one by one.

Of TurboQuant (arXiv 2504.19874) this follows the part that makes the squared error small (section 3.1): a vector's
length is stored beside it; its direction is turned by one random rotation, after which each coordinate, whatever the
vector was, is distributed like one of a random unit vector; and for that density a scalar quantiser is optimal whose
levels are computed once, by Lloyd's and Max's conditions.

Not followed: the rotation is a Hadamard matrix with random signs (a cosine transform where head_dim is no power of
two), the same on every machine, instead of one drawn from all rotations; there is no second stage with one bit of a
Johnson-Lindenstrauss residual for each number (section 3.2), which takes the bias out of inner products for more
variance; no extra bits for outlying channels (section 4.3); no entropy coding. Against the bias there is instead what
costs nothing: the length that is stored is the one with which a vector's inner product with itself comes out right, as
in RaBitQ (arXiv 2405.12497, section 3.2). On the packaged model that takes a tenth off the divergence at four bits.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch

from ..shape import Shape
from .base import Bytes, checked, joined, measured, narrowed, split

_GRID = 1 << 14
_CELLS = 1 << 12
_ROUNDS = 1000


@dataclass(frozen=True, slots=True)
class Rotated:
    """Codes of a few bits and a length in bfloat16 for each vector of head_dim numbers; the lengths come first."""

    bits: int
    exact: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return f"rotated{self.bits}"

    def size(self, shape: Shape, tokens: int) -> int:
        vectors = 2 * shape.layers * shape.kv_heads * tokens
        return 2 * vectors + self.bits * -(-vectors * shape.head_dim // 8)

    def encode(self, block: torch.Tensor) -> bytes:
        """Raises ValueError for vectors whose length is not finite, too."""
        vectors = checked(block).float()
        length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
        if not torch.isfinite(length).all():
            raise ValueError(f"{self.name}: found vectors of no finite length: keep such a block raw, or not at all")
        dim, device = vectors.shape[-1], vectors.device
        turned = (vectors / length.masked_fill(length == 0, 1.0)) @ rotation(dim).to(device).T
        cells = ((turned + 1.0) * (_CELLS / 2)).clamp_(0, _CELLS - 1).int()
        codes = _nearest(dim, self.bits).to(device).index_select(0, cells.flatten())
        rounded = levels(dim, self.bits).to(device).index_select(0, codes.int()).view_as(turned)
        fit = (turned * rounded).sum(-1, keepdim=True)
        return joined((length / fit.masked_fill_(fit == 0, 1.0)).bfloat16(), pack(codes, self.bits))

    def decode(self, data: Bytes, shape: Shape, tokens: int) -> torch.Tensor:
        measured(self, data, shape, tokens)
        sizes = (shape.layers, 2, shape.kv_heads, tokens)
        vectors = math.prod(sizes)
        lengths, packed = split(data, 2 * vectors, self.size(shape, tokens) - 2 * vectors)
        codes = unpack(packed, self.bits)[: vectors * shape.head_dim]
        turned = levels(shape.head_dim, self.bits).index_select(0, codes.int()).view(vectors, shape.head_dim)
        block = (turned @ rotation(shape.head_dim)).mul_(lengths.view(torch.bfloat16)[:, None])
        return narrowed(block, getattr(torch, shape.dtype)).view(*sizes, shape.head_dim)


ROTATED4 = Rotated(4)
ROTATED3 = Rotated(3)


@lru_cache
def rotation(dim: int) -> torch.Tensor:
    """An orthogonal matrix that spreads every direction over all coordinates: float32 [dim, dim].

    Its signs come from a hash, not from a generator that a later release may change: old bytes stay readable.
    """
    if dim & (dim - 1) == 0:
        mix = torch.ones(1, 1, dtype=torch.float64)
        while len(mix) < dim:
            mix = torch.cat((torch.cat((mix, mix), 1), torch.cat((mix, -mix), 1)))
        mix /= math.sqrt(dim)
    else:
        row, column = torch.arange(dim, dtype=torch.float64)[:, None], torch.arange(dim, dtype=torch.float64)
        mix = torch.cos(math.pi / dim * (column + 0.5) * row) * math.sqrt(2 / dim)
        mix[0] /= math.sqrt(2)
    drawn = hashlib.shake_128(f"sostenuto.rotation:{dim}".encode()).digest(dim)
    return (mix * torch.tensor([1.0 if byte & 1 else -1.0 for byte in drawn])).float()


@lru_cache
def levels(dim: int, bits: int) -> torch.Tensor:
    """What the codes stand for, ascending: float32 [2 ** bits], symmetric about zero.

    The best levels for one coordinate of a random unit vector in `dim` dimensions, whose density is proportional to
    (1 - x^2)^((dim - 3) / 2) (arXiv 2504.19874, lemma 1): each level is the mean of what is nearest to it.
    """
    # The positive half, for the density is even; beyond eight deviations there is nothing.
    step = min(1.0, 8 / math.sqrt(dim)) / _GRID
    grid = (torch.arange(_GRID, dtype=torch.float64) + 0.5) * step
    weight = torch.exp(torch.log1p(-grid * grid) * (dim - 3) / 2)
    sums = torch.stack((weight, weight * grid)).cumsum(1)
    sums = torch.nn.functional.pad(sums, (1, 0))
    count = 2 ** (bits - 1)
    found = torch.linspace(0, min(1.0, 3 / math.sqrt(dim)), 2 * count + 1, dtype=torch.float64)[1::2]
    for _ in range(_ROUNDS):
        at = ((found[1:] + found[:-1]) / 2 / step).clamp(0, _GRID - 1)
        low = at.long()
        inner = torch.lerp(sums[:, low], sums[:, low + 1], at - low)
        mass, moment = torch.cat((sums[:, :1], inner, sums[:, -1:]), 1).diff()
        found = moment / mass
    return torch.cat((-found.flip(0), found)).float()


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Eight codes in `bits` bytes: uint8 [n] below 2 ** bits, to uint8 [ceil(n / 8) * bits]. At most 4 bits."""
    padded = torch.nn.functional.pad(codes, (0, -len(codes) % 8))
    # A word holds eight codes, one a byte; neighbours move together until they touch: pairs, fours, all eight.
    word = padded.view(torch.int64)
    for have in (1, 2, 4):
        word = (word | word >> have * (8 - bits)) & _fields(2 * have, bits)
    return word[:, None].view(torch.uint8)[:, :bits].reshape(-1)


def unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """The way back from `pack`: uint8 [8 * len(packed) / bits], with the codes that filled the last bytes up."""
    word = torch.nn.functional.pad(packed.view(-1, bits), (0, 8 - bits)).view(torch.int64)[:, 0]
    for have in (4, 2, 1):
        word = (word | word << have * (8 - bits)) & _fields(have, bits)
    return word.view(torch.uint8)


def _fields(have: int, bits: int) -> int:
    """A mask of the low `have * bits` bits in every `have` bytes of a word."""
    field, every = (1 << have * bits) - 1, 8 * have
    return sum(field << at for at in range(0, 64, every))


@lru_cache
def _nearest(dim: int, bits: int) -> torch.Tensor:
    """For every cell from -1 to 1, the code of the level nearest to its middle: uint8 [cells].

    Ten times as fast as a search among the levels, and as good: the cells are much narrower than levels are apart.
    """
    every = levels(dim, bits)
    middles = (torch.arange(_CELLS) + 0.5) / _CELLS * 2 - 1
    return torch.bucketize(middles, (every[1:] + every[:-1]) / 2).to(torch.uint8)
