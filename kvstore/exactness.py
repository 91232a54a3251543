"""Which codecs there are, by name, and which give back what they were given: for those who choose one without torch."""

from __future__ import annotations

from typing import Literal, get_args

CodecName = Literal["raw", "fp8", "int8", "rotated4", "rotated3"]
RAW: CodecName = "raw"
CODEC_NAMES: tuple[CodecName, ...] = get_args(CodecName)
"""The exact one first, then as they need fewer bytes."""


def codec_name(name: str) -> CodecName:
    """The same, known to be a codec's. Raises ValueError, which says what there is."""
    if name not in CODEC_NAMES:
        raise ValueError(f"codec {name!r} is unknown: give one of {', '.join(CODEC_NAMES)}")
    return name


def is_exact(codec: str) -> bool:
    """Whether every bit comes back."""
    return codec == RAW
