"""H2O: the tokens that have drawn the most attention so far, and the latest (arXiv 2306.14048).

As published (section 4, algorithm 1): each head on its own; a token's score is the attention it was given, summed over
all queries; half of the budget is for the latest tokens, half for the heaviest of the others. The paper drops one token
whenever the cache is full. A parked context is thinned at once, which keeps the same tokens as dropping the lightest
one by one, as long as no query comes between; a live one may call `keep` in every step with the scores of what is left.

Published for heads that each have keys of their own. Where several query heads share keys, they share one cache, so
their attention is summed (`mass`): what one of them needs is needed.
"""

from __future__ import annotations

import torch

from .thinned import best, checked, everything

_ROWS = 128


def keep(mass: torch.Tensor, budget: int, *, recent: int | None = None) -> torch.Tensor:
    """The `recent` latest tokens (half of the budget unless given) and the heaviest of the others, `budget` in all.

    `mass` [..., tokens] is the attention that each token has drawn, as from `mass`; int64 [..., min(tokens, budget)].
    Of tokens as heavy as each other the earlier is kept. Raises ValueError for more latest tokens than the budget, or
    fewer than none.
    """
    length = mass.shape[-1]
    if checked(budget) >= length:
        return everything(mass.shape)
    latest = budget // 2 if recent is None else recent
    if not 0 <= latest <= budget:
        raise ValueError(f"{latest} latest tokens were to be kept within a budget of {budget}: give 0 to {budget}")
    heavy = best(mass[..., : length - latest], budget - latest)
    late = torch.arange(length - latest, length, device=mass.device).expand(*mass.shape[:-1], latest)
    return torch.cat((heavy, late), dim=-1)


def mass(queries: torch.Tensor, keys: torch.Tensor, *, scale: float) -> torch.Tensor:
    """The attention that each key draws from these queries, summed over them and over the heads that share the key.

    Queries [heads, n, head_dim], the last of which stands at the last of the keys [kv_heads, tokens, head_dim];
    n <= tokens, and each sees what does not come after it. float32 [kv_heads, tokens]; masses of consecutive pieces of
    a context add up, those of the earlier piece filled up with zeros. Takes time like attention itself, and room for
    128 rows of it.
    """
    groups, length = keys.shape[0], keys.shape[1]
    per = queries.shape[0] // groups
    late = queries.shape[1]
    places = torch.arange(length, device=keys.device)
    total = torch.zeros(groups, length, device=keys.device)
    for start in range(0, late, _ROWS):
        rows = queries[:, start : start + _ROWS].float()
        own = places[length - late + start :][: rows.shape[1]]
        logits = rows.reshape(groups, -1, rows.shape[-1]) @ keys.float().transpose(1, 2) * scale
        hidden = places > own.repeat(per)[:, None]
        total += logits.masked_fill_(hidden, float("-inf")).softmax(-1).sum(1)
    return total
