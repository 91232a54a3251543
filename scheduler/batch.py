"""Which tokens go into the next step (for engines that let us choose).

There is no prefill phase and no decode phase: every turn has tokens that are known and not yet computed, and a step
lets each catch up by some of them. Turns that lack just one are decoding and are always served. Prompts that go on
from a context, as those after a tool do, are short and go before those that begin with nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .costs import CHUNK, Costs
from .events import TurnId

COLD_SHARE = 0.25
"""Of what a step has for prompts: so much goes to those that begin with nothing, whoever resumes."""
LEAST = 16
"""Tokens of prompts in a step at least: below that its weights are read for nothing."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A running turn: how many of its tokens are known but not computed."""

    turn: TurnId
    pending: int
    found: int = 0
    """Tokens of its context that were there when it started."""
    behind: int = 0
    """Tokens that are computed by now."""

    @property
    def resumes(self) -> bool:
        """Does it go on from more than it lacks?"""
        return self.pending <= self.found


@dataclass(frozen=True, slots=True)
class Share:
    """What a turn gets of the next step."""

    turn: TurnId
    tokens: int


def compose(demands: Sequence[Demand], *, budget: int, beside: int = 0) -> tuple[Share, ...]:
    """Decoding turns first, one token each; then prompts that resume, then others, in the order given, in chunks.

    `budget` bounds the tokens of a step, but never below one for each decoding turn, of which there may be some
    `beside` that nobody names. Every call serves at least one
    token if any is pending, and the first prompt that begins with nothing gets its share: no turn waits for ever. A
    prompt is not cut so that one token stands alone, unless the budget leaves no choice: a row of its own is computed
    as decoding turns are, and would round otherwise than it does among its neighbours, only because of who else was
    there.
    """
    if budget < 1:
        raise ValueError(f"a step needs a budget of at least one token; found {budget}")
    shares = [Share(demand.turn, 1) for demand in demands if demand.pending == 1]
    decoding = len(shares) + beside
    left = max(budget - decoding, 0 if decoding else 1)
    prompts = [demand for demand in demands if demand.pending > 1]
    resuming = [demand for demand in prompts if demand.resumes]
    cold = [demand for demand in prompts if not demand.resumes]
    kept = min(int(left * COLD_SHARE), sum(demand.pending for demand in cold)) if resuming else 0
    for group, least in ((resuming, kept), (cold, 0)):
        for demand in group:
            if left <= least:
                break
            tokens = min(demand.pending, left - least)
            whole = tokens - (demand.pending - tokens == 1)
            if whole < 2 and (shares or beside):
                break  # those behind it do not overtake it
            tokens = max(whole, min(tokens, 2))
            shares.append(Share(demand.turn, tokens))
            left -= tokens
    return tuple(shares)


class Pace:
    """Chooses how many tokens of prompts a step holds, so that turns that decode keep their time per token.

    A step's time is that of the costs, corrected by what steps have taken lately against what was expected of them.
    Without a target every step may hold `most` tokens. `repr` shows the target and the correction.
    """

    def __init__(self, costs: Costs, *, target_s: float | None = None, most: int = CHUNK) -> None:
        """Raises ValueError for a target that is no time."""
        if target_s is not None and not 0 < target_s < float("inf"):
            raise ValueError(f"the time per token: found {target_s}; expected seconds above 0")
        self.target_s = target_s
        self.most = most
        self._costs = costs
        self._factor = 1.0
        self._expected = 0.0

    def share(self, demands: Sequence[Demand]) -> tuple[Share, ...]:
        """What each turn gets of the next step."""
        shares = compose(demands, budget=self._budget(demands))
        if self.target_s is not None:
            self._expected = self._time(demands, shares)
        return shares

    def took(self, seconds: float) -> None:
        """The step that was shared out last took so long."""
        if self.target_s is not None and self._expected > 0:
            factor = self._factor * 0.875 + seconds / self._expected * 0.125
            self._factor = min(max(factor, 0.01), 100.0)

    def __repr__(self) -> str:
        target = "none" if self.target_s is None else f"{self.target_s * 1e3:g} ms a token"
        return f"<Pace {target} | steps take {self._factor:.2f} of what they should>"

    def _budget(self, demands: Sequence[Demand]) -> int:
        decoding = [demand for demand in demands if demand.pending == 1]
        first = next((demand for demand in demands if demand.pending > 1), None)
        if self.target_s is None or not decoding or first is None:
            return self.most
        base = self._costs.decode(len(decoding), sum(demand.behind for demand in decoding))
        spare = self.target_s / self._factor - base
        each = self._costs.token_s + first.behind * self._costs.pair_s
        tokens = int(spare / each) if each > 0 else self.most
        return min(self.most, len(decoding) + max(tokens, LEAST))

    def _time(self, demands: Sequence[Demand], shares: Sequence[Share]) -> float:
        behind = {demand.turn: demand.behind for demand in demands}
        prompts = [(share.tokens, behind[share.turn]) for share in shares if share.tokens > 1]
        ones = [behind[share.turn] for share in shares if share.tokens == 1]
        return self._costs.step(prompts, len(ones), sum(ones))
