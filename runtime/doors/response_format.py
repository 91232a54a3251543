"""OpenAI's `response_format`, as both doors read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORM = "{'type': 'json_schema', 'json_schema': {'name': ..., 'schema': ...}}, or of type json_object or text"


def schema_of(wanted: Any) -> Mapping[str, Any] | None:
    """The JSON Schema that the whole answer must fit; None for text. Raises ValueError for anything else."""
    match wanted:
        case None | {"type": "text"}:
            return None
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return schema
        case {"type": "json_object"}:
            return {"type": "object"}
    raise ValueError(f"response_format: found {wanted!r}; expected {FORM}")
