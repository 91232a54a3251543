"""Answers as objects: the whole answer is JSON that fits a schema."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.runnables import Runnable, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass


def structured(
    model: Runnable[LanguageModelInput, Any], schema: Any, *, raw: bool
) -> Runnable[LanguageModelInput, Any]:
    """`model`, its answers held to `schema` and read by it: a pydantic class gives its objects, others dicts.

    With `raw`, as LangChain has it: a dict of the message (`raw`), the object (`parsed`) and what was wrong
    (`parsing_error`).
    """
    wanted = convert_to_json_schema(schema)
    named = {"name": str(wanted.get("title") or "answer"), "schema": wanted}
    held = model.bind(response_format={"type": "json_schema", "json_schema": named})
    read: Runnable[Any, Any] = JsonOutputParser()
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        read = PydanticOutputParser(pydantic_object=schema)
    if not raw:
        return held | read
    well = RunnablePassthrough.assign(parsed=itemgetter("raw") | read, parsing_error=lambda told: None)
    badly = RunnablePassthrough.assign(parsed=lambda told: None)
    return {"raw": held} | well.with_fallbacks([badly], exception_key="parsing_error")
