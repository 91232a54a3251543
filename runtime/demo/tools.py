"""Five real tools over the workshop's files and books."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import BaseModel, Field, ValidationError, create_model
from pydantic.v1 import ValidationError as OldValidationError

from . import arithmetic, books, library

DATA = Path(__file__).parent / "data"
LONGEST_READ = 700


def workshop(root: Path) -> list[BaseTool]:
    """``search_files``, ``read_file``, ``query_database``, ``calculate`` and ``final_answer`` over ``root``.

    ``root/library`` and ``root/workshop.db`` are made from the demo's own data where they are not there yet.
    What is there is left alone, so other texts or another database may take their place. The tools keep nothing
    open between calls, run in any thread, and answer what cannot be done as a tool error, not an exception.
    """
    texts, db = root / "library", root / "workshop.db"
    root.mkdir(parents=True, exist_ok=True)
    if not texts.exists():
        shutil.copytree(DATA / "library", texts)
    if not db.exists():
        books.build(DATA / "workshop.sql", db)
    return [_search_files(texts), _read_file(texts), _query_database(db), _calculate(), _final_answer()]


def _search_files(folder: Path) -> BaseTool:
    class SearchFiles(BaseModel):
        query: str = Field(description="One to four words to look for", min_length=1, max_length=60)
        limit: int = Field(default=8, description="How many lines at most", ge=1, le=20)

    def search_files(query: str, limit: int = 8) -> str:
        lines = library.search(folder, query, limit=limit)
        return "\n".join(map(str, lines)) if lines else f"No line has any word of {query!r}."

    return StructuredTool.from_function(
        search_files,
        description="Search the workshop's notes. Gives lines with the file's name and the line's number.",
        args_schema=SearchFiles,
        handle_validation_error=_explain,
    )


def _read_file(folder: Path) -> BaseTool:
    names = library.names(folder)
    # An enum in the schema, so that a grammar leaves the model no other name to write.
    name: Any = Literal.__getitem__(tuple(names)) if names else str
    arguments = create_model(
        "ReadFile",
        name=(name, Field(description="The file's name")),
        limit=(
            int,
            Field(default=LONGEST_READ, description="How many characters at most", ge=200, le=LONGEST_READ),
        ),
    )

    def read_file(name: str, limit: int = LONGEST_READ) -> str:
        try:
            return library.read(folder, name, limit=limit)
        except ValueError as error:
            raise ToolException(str(error)) from error

    return StructuredTool.from_function(
        read_file,
        description="Read one file of the workshop's notes.",
        args_schema=arguments,
        handle_tool_error=True,
        handle_validation_error=_explain,
    )


def _query_database(db: Path) -> BaseTool:
    class QueryDatabase(BaseModel):
        sql: str = Field(description="One SQLite SELECT", min_length=8, max_length=400)

    def query_database(sql: str) -> str:
        try:
            return str(books.ask(db, sql))
        except ValueError as error:
            # A model that guessed at the tables is shown them, with rows, so that its next query can be a better one.
            raise ToolException(f"{error}. The tables begin so:\n{books.sample(db)}") from error

    tables = "; ".join(f"{table} ({', '.join(columns)})" for table, columns in books.tables(db).items())
    return StructuredTool.from_function(
        query_database,
        description=f"Ask the workshop's database. It gives at most {books.MOST_ROWS} rows. Tables: {tables}",
        args_schema=QueryDatabase,
        handle_tool_error=True,
        handle_validation_error=_explain,
    )


def _calculate() -> BaseTool:
    class Calculate(BaseModel):
        expression: str = Field(
            description="Arithmetic such as 2 * 95 * (1 - 0.15)", min_length=1, max_length=arithmetic.LONGEST
        )

    def calculate(expression: str) -> str:
        try:
            value = arithmetic.evaluate(expression)
        except ValueError as error:
            raise ToolException(str(error)) from error
        return str(value) if isinstance(value, int) else f"{value:.12g}"

    return StructuredTool.from_function(
        calculate,
        description="Work out an arithmetic expression.",
        args_schema=Calculate,
        handle_tool_error=True,
        handle_validation_error=_explain,
    )


def _final_answer() -> BaseTool:
    class FinalAnswer(BaseModel):
        answer: str = Field(description="The answer in one to three sentences", min_length=1, max_length=400)

    def final_answer(answer: str) -> str:
        return answer

    return StructuredTool.from_function(
        final_answer,
        description="Give the answer to the question. This ends the task.",
        args_schema=FinalAnswer,
        return_direct=True,
        handle_validation_error=_explain,
    )


def _explain(error: ValidationError | OldValidationError) -> str:
    faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
    return f"These arguments do not fit: {'; '.join(faults)}. Call the tool again with ones that do."
