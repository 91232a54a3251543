"""A folder of text files that can be searched and read, and not left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_TEXTS = {".md", ".txt"}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file, counted from 1."""

    name: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.name}:{self.number}: {self.text}"


def names(folder: Path) -> list[str]:
    """The names of the folder's text files, sorted. Links are left out: they may lead elsewhere."""
    texts = (path for path in folder.iterdir() if path.suffix in _TEXTS and not path.is_symlink())
    return sorted(path.name for path in texts if path.is_file())


def search(folder: Path, query: str, *, limit: int) -> list[Line]:
    """At most ``limit`` lines that hold words of the query, in any case: those with most of them first.

    A word counts where it begins a word of the line: "pedal" finds "pedals". Reads every file, every time.
    """
    wanted = set(_words(query))
    found: list[tuple[int, Line]] = []
    for name in names(folder):
        text = (folder / name).read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            words = _words(line)
            hits = sum(any(word.startswith(part) for word in words) for part in wanted)
            if hits:
                found.append((hits, Line(name=name, number=number, text=line.strip())))
    found.sort(key=lambda hit: -hit[0])  # stable: equals stay in the order of files and lines
    return [line for _, line in found[:limit]]


def read(folder: Path, name: str, *, limit: int) -> str:
    """The first ``limit`` characters of a file, and a note where it was cut.

    Raises ``ValueError`` for a name that is not that of a text file in this folder; a link is none.
    """
    known = names(folder)
    if name not in known:
        raise ValueError(f"no file {name!r}; there are {', '.join(known)}")
    text = (folder / name).read_text(encoding="utf-8", errors="replace")
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[cut: {limit} of {len(text)} characters]"


def _words(text: str) -> list[str]:
    return "".join(letter if letter.isalnum() else " " for letter in text.casefold()).split()
