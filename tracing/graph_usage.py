"""What a chat model says of its answer, as far as it can be read: others may put anything there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage

from . import names
from .names import Value


class Heard:
    """An answer's model, reason to end, id and usage, put together from its message or its chunks. Never raises."""

    def __init__(self) -> None:
        self.about: dict[str, Any] = {}
        """The response metadata so far; the last word counts."""
        self._id: str | None = None
        self._used: dict[str, int] = {}

    def take(self, message: AIMessage) -> None:
        """A message, or one of its chunks: what chunks have used adds up."""
        if isinstance(message.response_metadata, dict):
            self.about |= message.response_metadata
        if isinstance(message.id, str):
            self._id = message.id
        for name, tokens in _used(message.usage_metadata).items():
            self._used[name] = self._used.get(name, 0) + tokens

    def facts(self) -> dict[str, Value]:
        """The attributes that follow; what was not said is left out."""
        facts: dict[str, Value] = dict(self._used)
        if names.CACHE_CREATION in facts:  # so back ends know it; newer conventions spell it the other way
            facts[names.CACHE_WRITE] = facts[names.CACHE_CREATION]
        if isinstance(model := self.about.get("model_name") or self.about.get("model"), str):
            facts[names.RESPONSE_MODEL] = model
        if isinstance(why := self.about.get("finish_reason") or self.about.get("stop_reason"), str):
            facts[names.FINISH_REASONS] = (why,)
        if self._id is not None:
            facts[names.RESPONSE_ID] = self._id
        return facts


def _used(usage: object) -> dict[str, int]:
    read, said = _part(usage, "input_token_details"), _part(usage, "output_token_details")
    found = {
        names.INPUT_TOKENS: _part(usage, "input_tokens"),
        names.OUTPUT_TOKENS: _part(usage, "output_tokens"),
        names.CACHE_READ: _part(read, "cache_read"),
        names.CACHE_CREATION: _part(read, "cache_creation"),
        names.REASONING_TOKENS: _part(said, "reasoning"),
    }
    return {name: tokens for name, tokens in found.items() if type(tokens) is int}


def _part(whole: object, key: str) -> object:
    return whole.get(key) if isinstance(whole, Mapping) else None
