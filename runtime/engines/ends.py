"""Where an answer ends: what the configurations call so, and what the chat template ends a turn with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|end_of_turn|>")
"""Tokens that end a turn in common chat templates, and that configurations often forget to call an end."""


def ends(tokenizer: Any, configurations: Iterable[Any]) -> tuple[int, ...]:
    """The ids that end an answer, sorted; `configurations` are what may have an `eos_token_id`."""
    found: set[int] = set()
    for value in (getattr(each, "eos_token_id", None) for each in (*configurations, tokenizer)):
        found.update(value if isinstance(value, list) else [value] if value is not None else [])
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    known = tokenizer.get_added_vocab()
    found.update(known[end] for end in _TURN_ENDS if end in template and end in known)
    return tuple(sorted(found))
