"""The vocabulary of a model that another process serves: its tokenizer, its size, and how its answers end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from ...errors import ModelNotFound
from ..ends import ends


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What `Speaker` wants of an engine."""

    tokenizer: Any
    eos: tuple[int, ...]
    size: int

    @classmethod
    def load(cls, source: str) -> Vocabulary:
        """From a directory or a hub id. Raises ModelNotFound."""
        untyped: Any = AutoTokenizer  # its class methods have no types
        try:
            tokenizer = untyped.from_pretrained(source)
            config: Any = AutoConfig.from_pretrained(source)
        except (OSError, ValueError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ModelNotFound(
                f"no tokenizer at {source!r}, which the server names as its model ({reason}): give tokenizer="
            ) from error
        text = config.get_text_config()
        size = max(int(text.vocab_size), len(tokenizer))
        return cls(tokenizer, ends(tokenizer, (_generation(source), text)), size)


def _generation(source: str) -> Any:
    try:
        return GenerationConfig.from_pretrained(source)
    except OSError:
        return None  # not every model has one
