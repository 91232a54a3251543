"""How the next token is chosen: the parameters, checked where they come in."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import BadSampling

COLD = 1e-3
"""Logits divided by less leave the range in which a softmax can be computed."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Parameters of one answer; the defaults are greedy. Raises BadSampling for a value out of its range."""

    temperature: float = 0.0
    """0 is greedy: the most likely token, and of equals the one with the smallest id. So is less than COLD."""
    top_p: float = 1.0
    """Keep the fewest tokens whose probabilities reach this sum (Holtzman et al., arXiv 1904.09751)."""
    top_k: int = 0
    """Keep so many of the likeliest tokens; 0 keeps all."""
    min_p: float = 0.0
    """Keep tokens at least this fraction as likely as the likeliest (arXiv 2407.01082)."""
    repetition_penalty: float = 1.0
    """Divide positive and multiply negative logits of tokens in prompt and answer (CTRL, arXiv 1909.05858)."""
    presence_penalty: float = 0.0
    """Subtract this from the logits of tokens said before."""
    frequency_penalty: float = 0.0
    """Subtract this as often as the token was said before."""
    seed: int | None = None
    """Equal seeds give equal answers, whatever else is in the batch; None draws one."""
    logprobs: int | None = None
    """Report this many alternatives beside each token."""
    stop: tuple[str, ...] = ()
    """Text that ends an answer, and is not part of it."""
    max_tokens: int = 256

    def __post_init__(self) -> None:
        for name in ("top_k", "max_tokens", "logprobs", "seed"):
            value = getattr(self, name)
            if not isinstance(value, int) and (value is not None or name in ("top_k", "max_tokens")):
                raise BadSampling(f"{name}: found {value!r}; expected a whole number")
        for name in ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"):
            if not isinstance(value := getattr(self, name), int | float):
                raise BadSampling(f"{name}: found {value!r}; expected a number")
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) for text in self.stop):
            raise BadSampling(f"stop: found {self.stop!r}; expected a tuple of texts")
        _within("temperature", self.temperature, 0, 1000)
        _within("top_p", self.top_p, 0, 1, above=True)
        _within("top_k", self.top_k, 0, None)
        _within("min_p", self.min_p, 0, 1)
        _within("repetition_penalty", self.repetition_penalty, 0.01, 100)
        _within("presence_penalty", self.presence_penalty, -2, 2)
        _within("frequency_penalty", self.frequency_penalty, -2, 2)
        _within("max_tokens", self.max_tokens, 1, None)
        _within("logprobs", self.logprobs or 0, 0, 20)
        if any(not text for text in self.stop):
            raise BadSampling("stop: found an empty text, which would end every answer at once; leave it out")


def _within(name: str, value: float, low: float, high: float | None, *, above: bool = False) -> None:
    fits = (value > low if above else value >= low) and (high is None or value <= high)
    if not fits:  # NaN fits nowhere either
        bound = f"{'more than' if above else 'at least'} {low}" + (f" and at most {high}" if high is not None else "")
        raise BadSampling(f"{name}: found {value}; expected {bound}")
