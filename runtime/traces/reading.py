"""Lines of a trace with their numbers, and what is said of one that cannot be used."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from ..errors import SostenutoError


class BadTrace(SostenutoError):
    """A trace cannot be read; the message names file and line."""


def opened(path: Path) -> TextIO:
    """A file of text, packed by gzip or not. Raises BadTrace where there is none."""
    if not path.is_file():
        raise BadTrace(f"there is no trace {path}: give a file, or generated:NAME")
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def objects(path: Path) -> Iterator[tuple[Row, dict[str, Any]]]:
    """The JSON objects of a file, one a line."""
    for number, line in lines(path):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadTrace(f"{path}, line {number} is no JSON ({error})") from error
        if not isinstance(found, dict):
            raise BadTrace(f"{path}, line {number}: expected an object, found {type(found).__name__}")
        yield Row(path, number, found), found


def rows(path: Path) -> Iterator[Row]:
    """The rows of a CSV file with a head."""
    with opened(path) as file:
        reader = csv.DictReader(file)
        try:
            for found in reader:
                yield Row(path, reader.line_num, {str(key): value for key, value in found.items()})
        except (csv.Error, UnicodeDecodeError, EOFError, OSError) as error:
            raise BadTrace(f"{path}, line {reader.line_num + 1} cannot be read ({error})") from error


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file, numbered from 1."""
    number = 0
    with opened(path) as file:
        try:
            for number, line in enumerate(file, 1):
                yield number, line
        except (UnicodeDecodeError, EOFError, OSError) as error:
            raise BadTrace(f"{path}, line {number + 1} cannot be read ({error}): is the file whole?") from error


class Row:
    """Fields of one line. Whoever asks for what is not there, or is of another kind, gets BadTrace with the line."""

    __slots__ = ("_fields", "number", "path")

    def __init__(self, path: Path, number: int, fields: dict[str, Any]) -> None:
        self.path = path
        self.number = number
        self._fields = fields

    def has(self, name: str) -> bool:
        return self._fields.get(name) not in (None, "")

    def count(self, name: str, least: int = 0) -> int:
        """A whole number, not less than `least`."""
        value = self.seconds(name)
        if value != int(value) or value < least:
            raise self.wrong(name, f"a whole number of at least {least}")
        return int(value)

    def whole(self, name: str) -> int:
        """A whole number."""
        value = self._fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(name, "a whole number")
        return value

    def seconds(self, name: str) -> float:
        """A number of at least 0."""
        value = self._fields.get(name)
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise self.wrong(name, "a number") from None
        if isinstance(value, bool) or not 0 <= number < float("inf"):
            raise self.wrong(name, "a number of at least 0")
        return number

    def text(self, name: str) -> str:
        value = self._fields.get(name)
        if not isinstance(value, str):
            raise self.wrong(name, "a text")
        return value

    def items(self, name: str) -> list[Any]:
        value = self._fields.get(name)
        if not isinstance(value, list):
            raise self.wrong(name, "a list")
        return value

    def wrong(self, name: str, expected: str) -> BadTrace:
        """The fault of a field."""
        found = repr(self._fields[name]) if name in self._fields else "nothing"
        return self.fault(f"{name}: found {found[:80]}, expected {expected}")

    def fault(self, why: str) -> BadTrace:
        """Something is wrong with this line."""
        return BadTrace(f"{self.path}, line {self.number}: {why}")
