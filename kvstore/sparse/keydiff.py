"""KeyDiff: the tokens whose keys are least like all the others (arXiv 2504.15364).

As published, in the form of linear cost: each head on its own; the anchor is the mean of the keys, each scaled to
length one; a key's score is its cosine with the anchor, and the lowest are kept, for keys that stand apart are those
that draw attention. No query and no attention is needed, so it goes with every attention kernel. The paper uses it
while a long prompt is read, block by block within the budget; here a whole context is thinned at once, and the anchor
is that of all its keys. Its variant with a window is `recent`; the method itself keeps no latest tokens as such.

Keys are taken as they lie in the cache, after their rotation.
"""

from __future__ import annotations

import torch

from .thinned import best, checked, everything


def keep(keys: torch.Tensor, budget: int, *, recent: int = 0) -> torch.Tensor:
    """The tokens least like the anchor, after the `recent` latest ones: int64 [..., min(tokens, budget)].

    Keys [..., tokens, head_dim]. Of keys as unlike as each other the earlier is kept; a key of zeros is as unlike as
    one at a right angle. Raises ValueError for more latest tokens than the budget, or fewer than none.
    """
    length = keys.shape[-2]
    if checked(budget) >= length:
        return everything(keys.shape[:-1])
    if not 0 <= recent <= budget:
        raise ValueError(f"{recent} latest tokens were to be kept within a budget of {budget}: give 0 to {budget}")
    unlike = -likeness(keys)
    unlike[..., length - recent :] = float("inf")
    return best(unlike, budget)


def likeness(keys: torch.Tensor) -> torch.Tensor:
    """The cosine of each key with the mean of all, each scaled to length one: float32 [..., tokens]."""
    directions = torch.nn.functional.normalize(keys.float(), dim=-1)
    anchor = torch.nn.functional.normalize(directions.mean(-2, keepdim=True), dim=-1)
    return (directions * anchor).sum(-1)
