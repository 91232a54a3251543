"""Eight-bit floats with four bits of exponent and three of fraction: an error in proportion to each number.

No number is further from what it was than 1/16 of itself, or, where it is small, than 1/1024 of its scale (e4m3 in its
finite variant, arXiv 2209.05433, section 3); the largest under a scale becomes 448, e4m3's largest.
"""

from __future__ import annotations

import torch

from .scaled import Scaled

FP8 = Scaled("fp8", torch.float8_e4m3fn, 448.0)
