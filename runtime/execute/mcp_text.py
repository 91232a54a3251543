"""What a server writes, as text, in whole lines: its reader is given no line in pieces.

The protocol's package joins what it has of a line with each piece that comes, so a line of 50 MB, which comes in 64 KiB
at most, is copied eight hundred times. An encoding that keeps back what is not the end of a line makes that one copy.
"""

from __future__ import annotations

import codecs
from typing import Any

ENCODING = "sostenuto-lines"
"""UTF-8, but what is read comes a line at a time."""


class _Lines(codecs.IncrementalDecoder):
    """Bytes are kept as they came until one of them ends a line."""

    def __init__(self, errors: str = "strict") -> None:
        super().__init__(errors)
        self._pieces: list[bytes] = []

    def decode(self, input: Any, final: bool = False) -> str:
        piece = bytes(input)
        end = len(piece) if final else piece.rfind(b"\n") + 1
        if not (end or final):
            self._pieces.append(piece)
            return ""
        whole = b"".join([*self._pieces, piece[:end]])
        self._pieces = [piece[end:]]
        return whole.decode("utf-8", self.errors)

    def reset(self) -> None:
        self._pieces = []


def _known(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != ENCODING:
        return None
    plain = codecs.lookup("utf-8")
    return codecs.CodecInfo(plain.encode, plain.decode, incrementaldecoder=_Lines, name=ENCODING)


codecs.register(_known)
