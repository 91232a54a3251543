"""From logits to a token: penalties, mask, temperature, top-k, top-p, min-p, logprob.

A draw depends on the seed and on how many tokens were said before it, and on nothing else: neither on the batch nor
on what was drawn in between. So a fork, a rollback or a preemption needs no state of the generator.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...errors import GrammarStuck, NotFinite
from ...sampling import COLD, Sampling
from .spread import Ids, Row, Spread, Sum, all_allowed, summed

_LIKELIEST = 64
"""Of so many tokens the order is looked for first, where the likeliest are to be kept; then of eight times as many."""


@dataclass(frozen=True, slots=True)
class Picked:
    """A token, how likely it was, in natural logarithms, and the likeliest alternatives."""

    token: int
    logprob: float
    """Under the model's own distribution."""
    top: tuple[tuple[int, float], ...]
    drawn: float = 0.0
    """Under the one it was drawn from: penalties, grammar and temperature applied, before top-k, top-p and min-p cut.
    Greedy answers are counted at temperature 1."""
    tempered: float = 0.0
    """Under the model's own at the sampling temperature; greedy answers: `logprob`."""
    forced: bool = False
    """The grammar allowed nothing else."""


class Sampler:
    """Chooses the tokens of one answer. `said` are those of an answer that was begun before and goes on here.

    `sum_up` looks at a row: in numpy, or in what the engine has built.
    """

    def __init__(
        self, sampling: Sampling, prompt: Sequence[int], said: Sequence[int] = (), *, sum_up: Sum = summed
    ) -> None:
        self.sampling = sampling
        self._seed = secrets.randbits(62) if sampling.seed is None else sampling.seed
        self._prompt = frozenset(prompt) if sampling.repetition_penalty != 1.0 else frozenset()
        self._said = list(said)
        self._sum_up = sum_up

    def pick(self, logits: torch.Tensor, mask: bytes | None = None) -> Picked:
        """A token for one row of logits [vocab]; `mask` has a bit per token, lowest first, 1 = allowed.

        `logprob` and `top` are those of the raw logits, before penalties, mask and temperature. One pass over the
        vocabulary sums each distribution that differs from the others, and none the same twice. GrammarStuck if
        the mask allows nothing, NotFinite if the logits are no numbers.
        """
        raw: Row = logits.float().contiguous().cpu().numpy()
        own = Spread(raw, self._sum_up)
        if not np.isfinite(own.total):
            raise NotFinite("the model's logits are no numbers: look at the weights that it was given")
        row = self._penalised(raw)
        cold = self.sampling.temperature < COLD
        warm = 1.0 if cold else self.sampling.temperature
        tempered = own if warm == 1.0 else Spread(raw, self._sum_up, warm=warm)
        if mask is not None and all_allowed(mask, raw.size):
            mask = None
        plain = row is raw and mask is None
        drawn = tempered if plain else Spread(row, self._sum_up, warm=warm, mask=mask)
        if not drawn.allowed:
            raise GrammarStuck(
                "the grammar allows no token here: its matcher is broken or the vocabulary is another one"
            )
        token = drawn.best if cold else self._draw(drawn)
        self._said.append(token)
        forced = mask is not None and drawn.allowed == 1
        return Picked(token, own.log(token), self._top(own), drawn.log(token), tempered.log(token), forced)

    def rollback(self, count: int) -> None:
        """Unsay the last `count` tokens: what is drawn next equals what was drawn then."""
        if not 0 <= count <= len(self._said):
            raise ValueError(f"cannot unsay {count} of {len(self._said)} tokens")
        del self._said[len(self._said) - count :]

    def _top(self, own: Spread) -> tuple[tuple[int, float], ...]:
        wanted = self.sampling.logprobs
        if not wanted:
            return ()
        ids = own.likeliest(wanted)[:wanted]
        return tuple((int(token), own.log(token)) for token in ids)

    def _penalised(self, row: Row) -> Row:
        s = self.sampling
        if s.repetition_penalty == 1.0 and not s.presence_penalty and not s.frequency_penalty:
            return row
        row = row.copy()
        if s.repetition_penalty != 1.0:
            seen = np.array(sorted(self._prompt | set(self._said)), dtype=np.int64)
            old = row[seen]
            row[seen] = np.where(old > 0, old / s.repetition_penalty, old * s.repetition_penalty)
        counts = Counter(self._said)
        if counts and (s.presence_penalty or s.frequency_penalty):
            often = np.array(list(counts.values()), dtype=np.float32)
            row[list(counts)] -= s.presence_penalty + s.frequency_penalty * often
        return row

    def _draw(self, spread: Spread) -> int:
        share = _share(self._seed, len(self._said))
        kept = self._kept(spread)
        if kept is None:
            return spread.at(share)
        mass = spread.parts(kept).cumsum(dtype=np.float64)
        # The first token at which the sum passes the share; one without probability never passes it.
        chosen = mass.searchsorted(share * mass[-1], side="right")
        return int(kept[min(int(chosen), len(kept) - 1)])

    def _kept(self, spread: Spread) -> Ids | None:
        """The tokens that top-k, top-p and min-p leave, the likeliest first; None for all."""
        s, size = self.sampling, spread.size
        if not s.top_k and s.top_p == 1.0 and not s.min_p:
            return None
        most = min(s.top_k or size, size)
        whole = spread.whole
        count = min(_LIKELIEST, most)
        while True:
            kept = spread.likeliest(count)[:most]
            shares = spread.parts(kept)
            good = (shares.cumsum(dtype=np.float64) - shares) / whole < s.top_p
            good &= shares >= s.min_p
            good[0] = True
            if not good.all() or count >= min(most, spread.allowed):
                left: Ids = kept[good]
                return left
            count = min(8 * count, most)


def _share(seed: int, position: int) -> float:
    """A number in [0, 1) with 53 random bits. A hash, because torch's generator on the CPU takes 32 bits of a seed."""
    digest = hashlib.blake2b(f"{seed} {position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53
