"""Codecs for the tiers below the device: a block as bytes, exactly or in fewer.

The default is exact. What a lossy codec touched lies under another root of names (`hashes.root(codec=...)`) and
under another seal, so no exact request ever meets it; a codec does not enforce that, whoever chooses one does.
"""

from __future__ import annotations

from .base import Codec
from .coding import CODECS, decoded, encoded, named
from .fp8 import FP8
from .int8 import INT8
from .raw import RAW
from .rotated import ROTATED3, ROTATED4

__all__ = ["CODECS", "FP8", "INT8", "RAW", "ROTATED3", "ROTATED4", "Codec", "decoded", "encoded", "named"]
