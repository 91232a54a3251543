"""From tokens to text, while they come: never half a character, never a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

from ..tools import MARKS

_BROKEN = "\ufffd"
"""What decoding gives for bytes that are not yet a whole character."""


class Detokenizer:
    """Spells one answer. Text is held back while it may still become part of a character or of a stop string.

    A token's text may depend on the one before it (leading spaces), so a short window of earlier tokens is decoded
    along each time; the cost is constant per token. Control tokens are not text, but for those that mark tool calls.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._marks = _marks(tokenizer)
        self._window: list[int] = []
        self._spelled = 0  # tokens of the window whose text is out already
        self._pending = ""

    def feed(self, token: int) -> tuple[str, bool]:
        """The text that is final now, and whether a stop string has ended the answer (it is not part of the text)."""
        self._window.append(token)
        before = self._decode(self._window[: self._spelled])
        now = self._decode(self._window)
        if now.endswith(_BROKEN):
            return "", False
        self._pending += now[len(before) :]
        self._window = self._window[self._spelled :]
        self._spelled = len(self._window)
        return self._release()

    def finish(self) -> str:
        """Whatever was held back."""
        before = self._decode(self._window[: self._spelled])
        rest = self._decode(self._window)[len(before) :]
        text, self._pending = self._pending + rest, ""
        self._spelled = len(self._window)
        return text

    def _release(self) -> tuple[str, bool]:
        hits = [place for stop in self._stop if (place := self._pending.find(stop)) >= 0]
        if hits:
            text, self._pending = self._pending[: min(hits)], ""
            return text, True
        kept = max((_overlap(self._pending, stop) for stop in self._stop), default=0)
        cut = len(self._pending) - kept
        text, self._pending = self._pending[:cut], self._pending[cut:]
        return text, False

    def _decode(self, tokens: Sequence[int]) -> str:
        if self._marks.isdisjoint(tokens):
            return self._plain(tokens)
        runs = groupby(tokens, self._marks.get)
        return "".join(self._plain(list(run)) if mark is None else mark * len(list(run)) for mark, run in runs)

    def _plain(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))


class _Marks(dict[int, str]):
    def isdisjoint(self, tokens: Sequence[int]) -> bool:
        return not self or not any(token in self for token in tokens)


@lru_cache(maxsize=8)
def _marks(tokenizer: Any) -> _Marks:
    """The control tokens that mark tool calls, with their text."""
    special = [str(word) for word in getattr(tokenizer, "all_special_tokens", ())]
    return _Marks((tokenizer.convert_tokens_to_ids(word), word) for word in special if word in MARKS)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-size:])), 0)
