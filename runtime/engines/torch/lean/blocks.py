"""Weights in blocks of four or eight bits, as a GGUF file has them, for steps of few rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch

SIZE = 32
"""Weights of a block."""
FEW = 4
"""Rows up to which blocks are quicker than whole numbers: they are read sooner, and take longer to unpack."""


class Kind(IntEnum):
    """GGUF's own numbers."""

    Q4_0 = 2
    Q4_1 = 3
    Q8_0 = 8


BYTES: Mapping[Kind, int] = {Kind.Q4_0: 18, Kind.Q4_1: 20, Kind.Q8_0: 34}
"""Of a block."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """A weight [outputs, inputs]: uint8 [outputs, bytes of a row]."""

    kind: Kind
    data: torch.Tensor

    def dequantised(self) -> torch.Tensor:
        """The same in float32, number for number."""
        raw = self.data.view(len(self.data), -1, BYTES[self.kind])
        scale = raw[..., :2].contiguous().view(torch.float16).float()
        if self.kind is Kind.Q8_0:
            return (raw[..., 2:].contiguous().view(torch.int8).float() * scale).flatten(1)
        at = 4 if self.kind is Kind.Q4_1 else 2
        packed = raw[..., at:]
        numbers = torch.cat([packed & 15, packed >> 4], -1).float()
        least = raw[..., 2:4].contiguous().view(torch.float16).float() if self.kind is Kind.Q4_1 else -8 * scale
        return (numbers * scale + least).flatten(1)


def joined(parts: Sequence[Blocks | None]) -> Blocks | None:
    """Several weights of the same rows as one; None where they are not all of one kind."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or len({part.kind for part in known}) > 1:
        return None
    return Blocks(known[0].kind, torch.cat([part.data for part in known]))
