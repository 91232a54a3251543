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
from numpy.typing import NDArray

from ...errors import GrammarStuck, NotFinite
from ...sampling import COLD, Sampling

_PARTS = 256
"""Tokens whose shares are summed together: a draw looks at the sums, and then into one of them."""
_LIKELIEST = 256
"""Of so many tokens the order is looked for first, where the likeliest are to be kept; then of eight times as many."""
_Row = NDArray[np.float32]


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
    """Chooses the tokens of one answer. `said` are those of an answer that was begun before and goes on here."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int], said: Sequence[int] = ()) -> None:
        self.sampling = sampling
        self._seed = secrets.randbits(62) if sampling.seed is None else sampling.seed
        self._prompt = frozenset(prompt) if sampling.repetition_penalty != 1.0 else frozenset()
        self._said = list(said)

    def pick(self, logits: torch.Tensor, mask: bytes | None = None) -> Picked:
        """A token for one row of logits [vocab]; `mask` has a bit per token, lowest first, 1 = allowed.

        `logprob` and `top` are those of the raw logits, before penalties, mask and temperature. One pass over the
        vocabulary sums each distribution that differs from the others, and none the same twice. GrammarStuck if
        the mask allows nothing, NotFinite if the logits are no numbers.
        """
        raw: _Row = logits.float().cpu().numpy()
        own = _Spread(raw)
        if not np.isfinite(own.total):
            raise NotFinite("the model's logits are no numbers: look at the weights that it was given")
        row, forced = self._penalised(raw), False
        if mask is not None:
            row, forced = _masked(row, mask)
        warm = self.sampling.temperature if self.sampling.temperature >= COLD else 0.0
        plain = warm in (0, 1)
        tempered = own if plain else _Spread(raw / np.float32(warm))
        drawn = tempered if row is raw else _Spread(row if plain else row / np.float32(warm))
        token = int(row.argmax()) if warm == 0 else self._draw(drawn)
        self._said.append(token)
        return Picked(token, own.log(token), self._top(own), drawn.log(token), tempered.log(token), forced)

    def rollback(self, count: int) -> None:
        """Unsay the last `count` tokens: what is drawn next equals what was drawn then."""
        if not 0 <= count <= len(self._said):
            raise ValueError(f"cannot unsay {count} of {len(self._said)} tokens")
        del self._said[len(self._said) - count :]

    def _top(self, own: _Spread) -> tuple[tuple[int, float], ...]:
        wanted = self.sampling.logprobs
        if not wanted:
            return ()
        ids = own.likeliest(wanted)[:wanted]
        return tuple((int(token), own.log(token)) for token in ids)

    def _penalised(self, row: _Row) -> _Row:
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

    def _draw(self, spread: _Spread) -> int:
        share = _share(self._seed, len(self._said))
        kept = self._kept(spread)
        if kept is None:
            return spread.at(share)
        mass = spread.each[kept].cumsum(dtype=np.float64)
        # The first token at which the sum passes the share; one without probability never passes it.
        chosen = mass.searchsorted(share * mass[-1], side="right")
        return int(kept[min(int(chosen), len(kept) - 1)])

    def _kept(self, spread: _Spread) -> NDArray[np.int64] | None:
        """The tokens that top-k, top-p and min-p leave, the likeliest first; None for all."""
        s, size = self.sampling, spread.each.size
        if not s.top_k and s.top_p == 1.0 and not s.min_p:
            return None
        most = min(s.top_k or size, size)
        whole = np.exp(spread.total - spread.highest)
        count = min(_LIKELIEST, most)
        while True:
            kept = spread.likeliest(count)[:most]
            shares = spread.each[kept]
            good = (shares.cumsum(dtype=np.float64) - shares) / whole < s.top_p
            good &= shares >= s.min_p
            good[0] = True
            if not good.all() or count == most:
                left: NDArray[np.int64] = kept[good]
                return left
            count = min(8 * count, most)


class _Spread:
    """How likely the tokens of a row of logits are, summed once."""

    __slots__ = ("each", "highest", "row", "sums", "total")

    def __init__(self, row: _Row) -> None:
        self.row = row
        self.highest = float(row.max())
        with np.errstate(invalid="ignore"):  # what is no number is told by whoever looks at the total
            self.each: _Row = np.exp(row - np.float32(self.highest))
            """As parts of the likeliest."""
        even = row.size // _PARTS * _PARTS
        rest = self.each[even:].sum(dtype=np.float64)
        self.sums = np.append(self.each[:even].reshape(-1, _PARTS).sum(1), rest).astype(np.float64)
        with np.errstate(invalid="ignore"):
            self.total = self.highest + float(np.log(self.sums.sum()))

    def log(self, token: int) -> float:
        """The logarithm of a token's share."""
        return float(self.row[token]) - self.total

    def at(self, share: float) -> int:
        """The first token at which the sum of shares, in the order of ids, passes this part of all."""
        before = self.sums.cumsum()
        wanted = share * before[-1]
        part = min(int(before.searchsorted(wanted, side="right")), int(self.sums.nonzero()[0][-1]))
        own = self.each[part * _PARTS : (part + 1) * _PARTS if part + 1 < len(self.sums) else None]
        mass = own.cumsum(dtype=np.float64)
        inside = int(mass.searchsorted(wanted - (before[part - 1] if part else 0.0), side="right"))
        return part * _PARTS + min(inside, int(own.nonzero()[0][-1]))

    def likeliest(self, count: int) -> NDArray[np.int64]:
        """At least so many tokens, the likeliest first, and of equals the one with the smallest id."""
        size = self.row.size
        ids = np.arange(size)
        if count < size:
            least = np.partition(self.row, size - count)[size - count]
            ids = np.flatnonzero(self.row >= least)
        return ids[np.argsort(-self.row[ids], kind="stable")]


def _share(seed: int, position: int) -> float:
    """A number in [0, 1) with 53 random bits. A hash, because torch's generator on the CPU takes 32 bits of a seed."""
    digest = hashlib.blake2b(f"{seed} {position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53


def _masked(row: _Row, mask: bytes) -> tuple[_Row, bool]:
    """The row with what is not allowed at minus infinity, and whether only one token is left."""
    bits = np.unpackbits(np.frombuffer(mask, dtype=np.uint8), count=min(8 * len(mask), row.size), bitorder="little")
    allowed = np.zeros(row.size, dtype=bool)
    allowed[: bits.size] = bits
    left = int(np.count_nonzero(allowed))
    if not left:
        raise GrammarStuck("the grammar allows no token here: its matcher is broken or the vocabulary is another one")
    if left == row.size:
        return row, False  # free text between calls: nothing to fill, and no second distribution to sum
    return np.where(allowed, row, np.float32("-inf")), left == 1
