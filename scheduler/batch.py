"""Which tokens go into the next step (for engines that let us choose).

There is no prefill phase and no decode phase: every turn has tokens that are known and not yet computed, and a step
lets each catch up by some of them. Turns that lack just one are decoding and are always served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .events import TurnId


@dataclass(frozen=True, slots=True)
class Demand:
    """A running turn: how many of its tokens are known but not computed."""

    turn: TurnId
    pending: int


@dataclass(frozen=True, slots=True)
class Share:
    """What a turn gets of the next step."""

    turn: TurnId
    tokens: int


def compose(demands: Sequence[Demand], *, budget: int) -> tuple[Share, ...]:
    """Decoding turns first, one token each; then prompts in the order given, in chunks, until `budget` is used up.

    `budget` bounds the tokens of a step, but never below one for each decoding turn. Every call serves at least one
    token if any is pending, so no turn waits for ever. A prompt is not cut so that one token stands alone, unless the
    budget leaves no choice: a row of its own is computed as decoding turns are, and would round otherwise than it does
    among its neighbours, only because of who else was there.
    """
    if budget < 1:
        raise ValueError(f"a step needs a budget of at least one token; found {budget}")
    shares = [Share(demand.turn, 1) for demand in demands if demand.pending == 1]
    left = max(budget - len(shares), 0 if shares else 1)
    for demand in demands:
        if demand.pending > 1 and left > 0:
            tokens = min(demand.pending, left)
            whole = tokens - (demand.pending - tokens == 1)
            if whole < 2 and shares:
                break  # those behind it do not overtake it
            tokens = max(whole, min(tokens, 2))
            shares.append(Share(demand.turn, tokens))
            left -= tokens
    return tuple(shares)
