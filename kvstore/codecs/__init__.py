"""Codecs for the tiers below the device: a block as bytes, exactly or in fewer.

The default is exact. What a lossy codec touched lies under another root of names (`hashes.root(exact=False)`) and
under another seal, so no exact request ever meets it; a codec does not enforce that, whoever chooses one does.
"""

from __future__ import annotations

from .base import Codec
from .fp8 import FP8
from .int8 import INT8
from .raw import RAW
from .rotated import ROTATED3, ROTATED4

__all__ = ["CODECS", "FP8", "INT8", "RAW", "ROTATED3", "ROTATED4", "Codec", "named"]

CODECS: tuple[Codec, ...] = (RAW, FP8, INT8, ROTATED4, ROTATED3)
"""Every codec, the exact one first, then as they need fewer bytes."""


def named(name: str) -> Codec:
    """The codec of this name. Raises ValueError, which says what there is."""
    for codec in CODECS:
        if codec.name == name:
            return codec
    raise ValueError(f"codec {name!r} is unknown: give one of {', '.join(codec.name for codec in CODECS)}")
