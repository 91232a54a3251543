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

import torch

from ...errors import GrammarStuck, NotFinite
from ...sampling import COLD, Sampling


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
        raw = logits.float().cpu()
        total = torch.logsumexp(raw, 0)
        if not torch.isfinite(total):
            raise NotFinite("the model's logits are no numbers: look at the weights that it was given")
        row, forced = self._penalised(raw), False
        if mask is not None:
            row, forced = _masked(row, mask)
        warm = self.sampling.temperature if self.sampling.temperature >= COLD else 0.0
        cooled = row if warm in (0, 1) else row / warm
        token = int(row.argmax()) if warm == 0 else self._draw(cooled)
        self._said.append(token)
        logprob = float(raw[token] - total)
        tempered = logprob if warm in (0, 1) else _log_share(cooled if row is raw else raw / warm, token)
        drawn = tempered if row is raw else _log_share(cooled, token)
        return Picked(token, logprob, self._top(raw, total), drawn, tempered, forced)

    def rollback(self, count: int) -> None:
        """Unsay the last `count` tokens: what is drawn next equals what was drawn then."""
        if not 0 <= count <= len(self._said):
            raise ValueError(f"cannot unsay {count} of {len(self._said)} tokens")
        del self._said[len(self._said) - count :]

    def _top(self, raw: torch.Tensor, total: torch.Tensor) -> tuple[tuple[int, float], ...]:
        wanted = self.sampling.logprobs
        if not wanted:
            return ()
        values, ids = raw.topk(min(wanted, raw.numel()))
        return tuple(zip(ids.tolist(), (values - total).tolist(), strict=True))

    def _penalised(self, row: torch.Tensor) -> torch.Tensor:
        s = self.sampling
        if s.repetition_penalty == 1.0 and not s.presence_penalty and not s.frequency_penalty:
            return row
        row = row.clone()
        if s.repetition_penalty != 1.0:
            seen = torch.tensor(sorted(self._prompt | set(self._said)), dtype=torch.long)
            old = row[seen]
            row[seen] = torch.where(old > 0, old / s.repetition_penalty, old * s.repetition_penalty)
        counts = Counter(self._said)
        if counts and (s.presence_penalty or s.frequency_penalty):
            ids = torch.tensor(list(counts), dtype=torch.long)
            row[ids] -= s.presence_penalty + s.frequency_penalty * torch.tensor([float(n) for n in counts.values()])
        return row

    def _draw(self, row: torch.Tensor) -> int:
        s = self.sampling
        values, ids = row.sort(descending=True, stable=True)
        probs = values.softmax(0)
        keep = torch.ones_like(probs, dtype=torch.bool)
        if s.top_k:
            keep[s.top_k :] = False
        if s.top_p < 1.0:
            keep &= probs.cumsum(0) - probs < s.top_p
        if s.min_p:
            keep &= probs >= s.min_p * probs[0]
        keep[0] = True
        mass = torch.where(keep, probs, 0.0).double().cumsum(0)
        # The first token at which the sum passes the share; one without probability never passes it.
        chosen = torch.searchsorted(mass, _share(self._seed, len(self._said)) * mass[-1], right=True)
        return int(ids[min(int(chosen), ids.numel() - 1)])


def _share(seed: int, position: int) -> float:
    """A number in [0, 1) with 53 random bits. A hash, because torch's generator on the CPU takes 32 bits of a seed."""
    digest = hashlib.blake2b(f"{seed} {position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53


def _log_share(row: torch.Tensor, token: int) -> float:
    """The token's part of the softmax of a row, as its logarithm."""
    return float(row[token] - torch.logsumexp(row, 0))


def _masked(row: torch.Tensor, mask: bytes) -> tuple[torch.Tensor, bool]:
    """The row with what is not allowed at minus infinity, and whether only one token is left."""
    packed = torch.frombuffer(bytearray(mask), dtype=torch.uint8)
    bits = ((packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1).reshape(-1)[: row.numel()].bool()
    allowed = torch.zeros_like(row, dtype=torch.bool)
    allowed[: bits.numel()] = bits
    left = int(allowed.sum())
    if not left:
        raise GrammarStuck("the grammar allows no token here: its matcher is broken or the vocabulary is another one")
    if left == row.numel():
        return row, False  # free text between calls: nothing to fill, and no second distribution to sum
    return row.masked_fill(~allowed, float("-inf")), left == 1
