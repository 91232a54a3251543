"""A saver that writes what it has read just as it was, whether or not this process can make sense of it.

Whoever prunes threads need not be who runs the graphs: where a type cannot be imported, or is not on the list of
those allowed, LangGraph reads plain data in its place and would save that.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.base import SerializerProtocol

Stored = tuple[str, bytes]
"""A value's format and its bytes."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A value that is only carried."""

    stored: Stored


class Verbatim:
    """A serializer that gives back the bytes from which it made a value, if nobody has changed it since."""

    def __init__(self, serde: SerializerProtocol) -> None:
        self._serde = serde
        self._read: dict[int, tuple[Any, Stored, Stored]] = {}
        """By identity: the value, kept so that no other gets its identity; how we would write it; its bytes."""

    def loads_typed(self, data: Stored) -> Any:
        """The value; sealed, if we would not write the same bytes and no identity tells it apart."""
        value = self._serde.loads_typed(data)
        written = self._serde.dumps_typed(value)
        if written == data:
            return value
        if isinstance(value, Hashable):  # perhaps one object for many values, like a number or an empty tuple
            return Sealed(data)
        self._read[id(value)] = (value, written, data)
        return value

    def dumps_typed(self, obj: Any) -> Stored:
        if isinstance(obj, Sealed):
            return obj.stored
        written = self._serde.dumps_typed(obj)
        known = self._read.get(id(obj))
        return known[2] if known is not None and known[1] == written else written


def verbatim(saver: BaseCheckpointSaver[Any]) -> BaseCheckpointSaver[Any]:
    """A shallow copy with such a serializer, made as LangGraph itself does for a saver's list of allowed types."""
    if hasattr(saver, "__del__"):  # the copy's end would be taken for the saver's
        return saver
    copied = copy.copy(saver)
    copied.serde = Verbatim(saver.serde)
    return copied
