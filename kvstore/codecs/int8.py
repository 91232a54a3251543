"""Whole numbers from -127 to 127: half a step of error, the same for small and large numbers under a scale.

No number is further from what it was than half of its scale, that is about 1/254 of the largest under it, and what
the caller's dtype rounds.
"""

from __future__ import annotations

import torch

from .scaled import Scaled

INT8 = Scaled("int8", torch.int8, 127.0)
