"""A JSON object read field by field: what is there has the type it must have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import BadRequest

MOST = 1e300
"""The largest number that is taken for one; JSON has larger ones, and no number at all is no smaller than any."""


class Fields:
    """The fields of a request. A null counts as absent; a field that nobody asks for is nobody's business.

    Every reader raises BadRequest that names the field, what was found there and what was expected.
    """

    def __init__(self, value: object, where: str = "") -> None:
        self.where = where
        if not isinstance(value, Mapping):
            raise BadRequest(where, value, "a JSON object")
        self._values = value

    def raw(self, name: str) -> Any:
        """Whatever stands there; None for nothing."""
        return self._values.get(name)

    def place(self, name: str) -> str:
        """The field's full name, for errors."""
        return f"{self.where}.{name}" if self.where else name

    def wrong(self, name: str, expected: str) -> BadRequest:
        return BadRequest(self.place(name), self.raw(name), expected)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def whole(self, name: str, default: int, *, least: int | None = None, most: int | None = None) -> int:
        """A whole number; 3.0 is one too."""
        value = self.raw(name)
        if value is None:
            return default
        bounds = "" if least is None else f" of at least {least}"
        bounds += "" if most is None else f" and at most {most}"
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
            raise self.wrong(name, f"a whole number{bounds}")
        if (least is not None and value < least) or (most is not None and value > most):
            raise self.wrong(name, f"a whole number{bounds}")
        return int(value)

    def number(self, name: str, default: float) -> float:
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MOST:
            raise self.wrong(name, "a number")
        return float(value)

    def text(self, name: str, default: str = "") -> str:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.wrong(name, "text")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """One text, or a list of them."""
        value = self.raw(name)
        if value is None:
            return ()
        several = [value] if isinstance(value, str) else value
        if not isinstance(several, list) or not all(isinstance(each, str) for each in several):
            raise self.wrong(name, "text, or a list of texts")
        return tuple(several)

    def objects(self, name: str) -> list[Mapping[str, Any]]:
        """A list of objects."""
        value = self.raw(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
            raise self.wrong(name, "a list of JSON objects")
        return value

    def inner(self, name: str) -> Fields:
        """The object that stands there; an empty one for nothing."""
        value = self.raw(name)
        return Fields({} if value is None else value, self.place(name))

    def refuse(self, name: str, why: str, *, unless: tuple[object, ...] = ()) -> None:
        """A field that we know and cannot honour is refused, unless it asks for nothing."""
        if self.raw(name) not in (None, *unless):
            raise self.wrong(name, f"nothing: {why}")

    def only(self, *names: str) -> None:
        """No other fields: for objects that are ours alone."""
        odd = sorted(set(self._values) - set(names))
        if odd:
            raise self.wrong(odd[0], f"only {', '.join(names)} here")
