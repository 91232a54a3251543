"""What grants, records and caches go by: one way of writing a JSON value, and a digest of a tool as it was shown."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from .spec import Tool


def canonical(value: Any) -> str:
    """The same text for the same JSON value: keys in order, no space. Raises ValueError for what is no JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 over the canonical text, in hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def tool_digest(tool: Tool) -> str:
    """Of all that the model was shown of a tool: one whose schema or description has changed is another tool."""
    return digest([tool.name, tool.description, tool.parameters])
