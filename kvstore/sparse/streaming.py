"""StreamingLLM: the first tokens of a context, which attention rests on, and the latest (arXiv 2309.17453).

As published (section 3.2): four sinks and a window, common to all layers and heads; only the length is looked at.

What differs is where the kept tokens stand. Published is a cache of keys before their rotation, which are rotated anew
in every step to their places *in the cache*, so that a stream without end never leaves the positions that the model was
trained on. Our keys are stored after their rotation, and a thinned context keeps its positions: the tokens know how far
apart they were, and nothing is computed; but a stream goes on only up to the model's own length. `rotate` with `shifts`
gives the published places, by turning the stored keys back; the next token then stands at the number of tokens kept.
"""

from __future__ import annotations

import torch

from .thinned import checked, everything

SINKS = 4
"""As many as the paper found to be enough for models that were not trained with one."""


def keep(length: int, budget: int, *, sinks: int = SINKS) -> torch.Tensor:
    """The first `sinks` positions and the latest of the rest, `budget` in all: int64 [min(length, budget)].

    Raises ValueError for a budget that does not hold the sinks and one token more.
    """
    if checked(budget) >= length:
        return everything((length,))
    window = checked(budget, sinks + 1) - sinks
    return torch.cat((torch.arange(sinks), torch.arange(length - window, length)))


def shifts(kept: torch.Tensor) -> torch.Tensor:
    """How far each kept token moves when the gaps before it close: int64, of `kept`'s shape, never above zero."""
    return torch.arange(kept.shape[-1], device=kept.device) - kept


def rotate(keys: torch.Tensor, shift: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """Keys as they would be `shift` positions further on, in their own dtype.

    Keys [..., tokens, head_dim] after a rotary embedding of the whole head whose pairs are (i, i + head_dim / 2), as
    Llama's in transformers (arXiv 2104.09864, equation 34, in the order of the GPT-NeoX family); `shift` [..., tokens];
    `frequencies` [head_dim / 2], radians a position. Right for every rotary scaling whose frequencies do not change
    with the length, for rotations of one plane add. Raises ValueError for frequencies of another head.
    """
    if frequencies.shape != (keys.shape[-1] // 2,):
        raise ValueError(
            f"found frequencies {list(frequencies.shape)}; expected {keys.shape[-1] // 2}, half of what a head has: "
            "heads that are rotated in part cannot be moved"
        )
    angle = shift[..., None].double() * frequencies.double()
    cos, sin = angle.cos().float(), angle.sin().float()
    first, second = keys.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(keys.dtype)
