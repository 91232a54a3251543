"""From the bytes of a page to those that its seal's codec makes of them, and back."""

from __future__ import annotations

from ..exactness import RAW as EXACT
from ..exactness import codec_name
from ..seal import Seal
from ..shape import Shape
from .base import Bytes, Codec
from .fp8 import FP8
from .int8 import INT8
from .raw import RAW
from .rotated import ROTATED3, ROTATED4

CODECS: tuple[Codec, ...] = (RAW, FP8, INT8, ROTATED4, ROTATED3)
"""Every codec, the exact one first, then as they need fewer bytes."""


def named(name: str) -> Codec:
    """The codec of this name. Raises ValueError, which says what there is."""
    known = codec_name(name)
    return next(codec for codec in CODECS if codec.name == known)


def encoded(page: Bytes, seal: Seal, tokens: int) -> Bytes:
    """The first so many tokens of a page as a seal's codec writes them; raw ones are the very bytes.

    Raises ValueError for what the codec cannot say: numbers that are not finite.
    """
    if seal.codec == EXACT:
        return page
    return named(seal.codec).encode(RAW.decode(page, _shape(seal), tokens))


def decoded(payload: Bytes, seal: Seal, tokens: int) -> Bytes:
    """What `encoded` gave, as a page has it. Raises ValueError for bytes that are not as many as the codec writes."""
    if seal.codec == EXACT:
        return payload
    return RAW.encode(named(seal.codec).decode(payload, _shape(seal), tokens))


def _shape(seal: Seal) -> Shape:
    return Shape(seal.layers, seal.kv_heads, seal.head_dim, seal.dtype, seal.page)
