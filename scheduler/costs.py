"""What computing, keeping and moving a context costs here, in seconds: what `sostenuto calibrate` measures.

A step reads all weights once, whatever is in it; each token of a prompt costs by itself and by what it looks back at;
each turn that decodes costs its row and what it looks back at. So a step of prompts and decoding turns costs

    step_s + sum(token_s * n + pair_s * (behind * n + n * n / 2)) + turn_s * turns + seen_s * seen

and a chunked prompt is a sum of such steps. The way to a tier and back has a start and a price a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

CHUNK = 512
"""Tokens of prompts in one step, unless an engine says otherwise."""


@dataclass(frozen=True, slots=True)
class Link:
    """The way to a tier below the device and back."""

    start_s: float
    """Any copy, however short."""
    out_s: float
    """A token that is copied there."""
    back_s: float
    """A token that is fetched."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Plain data that policies, step batcher and simulator read."""

    step_s: float
    token_s: float
    pair_s: float
    turn_s: float
    seen_s: float
    links: Mapping[str, Link] = field(default_factory=lambda: MappingProxyType({}))
    """By the tiers' names."""
    chunk: int = CHUNK
    source: str = ""
    """What was measured, for people."""

    def prefill(self, tokens: int, behind: int = 0) -> float:
        """Computing so many tokens behind others, alone, in chunks."""
        steps = -(-tokens // self.chunk)
        return steps * self.step_s + self.prompt(tokens, behind)

    def prompt(self, tokens: int, behind: int = 0) -> float:
        """What tokens of a prompt add to a step."""
        return tokens * self.token_s + tokens * (behind + tokens / 2) * self.pair_s

    def decode(self, turns: int, seen: int) -> float:
        """A step in which so many turns say a token each, and look back at `seen` tokens together."""
        return self.step_s + turns * self.turn_s + seen * self.seen_s

    def step(self, prompts: Sequence[tuple[int, int]], turns: int, seen: int) -> float:
        """A step of pieces of prompts, each (tokens, behind), and of turns that decode."""
        return self.decode(turns, seen) + sum(self.prompt(tokens, behind) for tokens, behind in prompts)

    def store(self, tier: str, tokens: int) -> float:
        """Copying so many tokens there; nothing where the way is not known."""
        link = self.links.get(tier)
        return 0.0 if link is None else link.start_s + tokens * link.out_s

    def fetch(self, tier: str, tokens: int) -> float:
        """Bringing them back; as dear as computing them where the way is not known."""
        link = self.links.get(tier)
        return self.prefill(tokens) if link is None else link.start_s + tokens * link.back_s

    def nearest(self, tokens: int, tiers: Sequence[str]) -> str | None:
        """The tier from which a context comes back soonest; None if computing it anew is as quick as any."""
        soonest = min(tiers, key=lambda tier: self.fetch(tier, tokens), default=None)
        return None if soonest is None or self.fetch(soonest, tokens) >= self.prefill(tokens) else soonest

    def scaled(self, tokens: int) -> Costs:
        """For a schedule in which each token stands for so many."""
        links = {tier: Link(way.start_s, way.out_s * tokens, way.back_s * tokens) for tier, way in self.links.items()}
        token, pair, seen = self.token_s * tokens, self.pair_s * tokens * tokens, self.seen_s * tokens
        chunk = max(1, self.chunk // tokens)
        return replace(self, token_s=token, pair_s=pair, seen_s=seen, links=MappingProxyType(links), chunk=chunk)

    def per_token(self, tokens: int) -> float:
        """Seconds that keeping such a context saves, for each token that it keeps."""
        return self.prompt(tokens) / tokens if tokens else 0.0

    def data(self) -> dict[str, Any]:
        """As plain data, for a file; `read` is the way back."""
        each = {name: getattr(self, name) for name in (*_NUMBERS, "chunk", "source")}
        return each | {"links": {tier: asdict(link) for tier, link in self.links.items()}}

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Costs:
        """What `data` gave. Raises ValueError, with what is wrong, for anything else."""
        try:
            links = {
                str(tier): Link(**{key: _cost(key, each) for key, each in link.items()})
                for tier, link in data["links"].items()
            }
            numbers = {name: _cost(name, data[name]) for name in _NUMBERS}
            chunk = data["chunk"]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"these are no costs as they are written: {type(error).__name__} {error}") from error
        if isinstance(chunk, bool) or not isinstance(chunk, int) or not 1 <= chunk <= _MOST:
            raise ValueError(f"chunk: found {chunk!r}; expected a number of tokens from 1 up")
        return cls(**numbers, links=MappingProxyType(links), chunk=chunk, source=str(data.get("source", "")))


_MOST = 10**9
_NUMBERS = ("step_s", "token_s", "pair_s", "turn_s", "seen_s")


def _cost(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST:
        raise ValueError(f"{name}: found {value!r}; expected seconds, from 0 to {_MOST}")
    return float(value)


TYPICAL = Costs(
    step_s=0.05,
    token_s=4e-4,
    pair_s=3e-7,
    turn_s=2e-3,
    seen_s=2e-5,
    links=MappingProxyType({"host": Link(1e-3, 8e-6, 8e-6), "disk": Link(1.5e-2, 1e-4, 2e-5)}),
    source="a small model on two cores: in the place of what was not measured",
)
"""Orders of magnitude, for who has not measured."""
