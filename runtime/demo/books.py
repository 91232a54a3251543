"""Questions to a SQLite file that can neither change it nor run away."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

MOST_ROWS = 12
WIDEST_CELL = 120
_STEPS = 10_000
_MOST_CALLS = 300
_LONGEST_VALUE = 100_000
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


@dataclass(frozen=True, slots=True)
class Rows:
    """What a query gave: the columns' names, at most ``MOST_ROWS`` rows, and whether there were more."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    more: bool

    def __str__(self) -> str:
        lines = [" | ".join(self.columns), *(" | ".join(map(_cell, row)) for row in self.rows)]
        if not self.rows:
            lines.append("(no rows)")
        if self.more:
            lines.append(f"(more than {MOST_ROWS} rows; narrow the query or add up in SQL)")
        return "\n".join(lines)


def build(script: Path, target: Path) -> None:
    """Write the SQLite file that the SQL of ``script`` describes. The file appears whole or not at all."""
    draft = target.with_name(f"{target.name}.draft")
    draft.unlink(missing_ok=True)
    with closing(sqlite3.connect(draft)) as connection:
        connection.executescript(script.read_text(encoding="utf-8"))
        connection.commit()
    draft.replace(target)


def tables(file: Path) -> dict[str, tuple[str, ...]]:
    """The names of the tables and of their columns."""
    with closing(_connect(file)) as connection:
        found: dict[str, tuple[str, ...]] = {}
        for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"):
            columns = connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
            found[str(table)] = tuple(str(column) for (column,) in columns)
        return found


def sample(file: Path, rows: int = 3) -> str:
    """Every table's columns and first rows, to show what can be asked for."""
    shown = []
    with closing(_connect(file)) as connection:
        for table, columns in tables(file).items():
            found = connection.execute(f'SELECT * FROM "{table}" LIMIT ?', (rows,)).fetchall()
            lines = [" | ".join(map(_cell, row)) for row in found]
            shown.append("\n".join([f"{table}: {' | '.join(columns)}", *lines]))
    return "\n".join(shown)


def ask(file: Path, sql: str) -> Rows:
    """The rows of one SELECT, read through a connection of its own that is closed again.

    Everything but reading is refused, values are bounded, and a query that takes more than about three
    million steps of SQLite's machine is stopped. Raises ``ValueError`` with SQLite's own words.
    """
    calls = 0

    def enough() -> int:
        nonlocal calls
        calls += 1
        return int(calls > _MOST_CALLS)

    try:
        with closing(_connect(file)) as connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
            connection.set_authorizer(_authorize)
            connection.set_progress_handler(enough, _STEPS)
            cursor = connection.execute(sql)
            if cursor.description is None:
                raise ValueError("that is no query; write one SELECT")
            rows = cursor.fetchmany(MOST_ROWS + 1)
            columns = tuple(str(column[0]) for column in cursor.description)
            return Rows(columns=columns, rows=tuple(rows[:MOST_ROWS]), more=len(rows) > MOST_ROWS)
    # Up to Python 3.11 a second statement is a Warning, from 3.12 on an Error.
    except (sqlite3.Error, sqlite3.Warning) as error:
        if calls > _MOST_CALLS:
            raise ValueError("the query took too many steps and was stopped; join on ids and narrow it") from error
        raise ValueError(f"SQLite refused the query: {error}; write one SELECT over the tables") from error


def _connect(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)


def _authorize(action: int, *_: str | None) -> int:
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def _cell(value: object) -> str:
    match value:
        case None:
            return "NULL"
        case float():
            return f"{value:.10g}"
        case bytes():
            return f"({len(value)} bytes)"
        case _:
            text = " ".join(str(value).split())
            return text if len(text) <= WIDEST_CELL else f"{text[: WIDEST_CELL - 1]}…"
