"""What is left of a context that was thinned: which slots there are, and under which names they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..kvstore import BlockHash, name, thinned_root


@dataclass(frozen=True, slots=True)
class Remnant:
    """A value: it says what was kept, and not whether it is there still."""

    policy: str
    budget: int
    """Tokens that each head might keep."""
    past: tuple[int, ...]
    """The tokens of the context that was thinned."""
    kept: tuple[int, ...]
    """Those of them that one head has kept. They name the slots; other heads have kept others in theirs."""
    digest: bytes
    """Says of all heads which positions they have kept."""

    @property
    def dropped(self) -> int:
        """How many tokens each head has lost."""
        return len(self.past) - len(self.kept)

    def behind(self, tokens: Sequence[int]) -> bool:
        """Whether these tokens go on from that context, by one at least, for what is kept gives no logits."""
        length = len(self.past)
        return len(tokens) > length and tuple(tokens[:length]) == self.past

    def slots(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """What lies in the slots of a conversation that goes on from here."""
        return (*self.kept, *tokens[len(self.past) :])

    def root(self, exact: str) -> str:
        """The root of its names in hex, under the root of its tenant's exact ones: others with other weights."""
        context = name(BlockHash(bytes.fromhex(exact)), self.past)
        return thinned_root(context, policy=self.policy, budget=self.budget, kept=self.digest).hex()

    def __repr__(self) -> str:
        return f"<Remnant {len(self.kept)}/{len(self.past)} by {self.policy}>"
