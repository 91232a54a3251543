"""Tool calls: schemas, grammars, parsing, validation. Pure: no input, no output, no threads, no clock."""

from .bounds import Bounds
from .decide import Dispatch, Reject, Verdict, decide, judge_result, result_validators, shape, validators
from .dialects import (
    HERMES,
    SMOLLM,
    Dialect,
    dialect_for,
    render_call,
    render_examples,
    render_result,
    render_tools,
)
from .errors import (
    BadChoice,
    BadSchema,
    BadTool,
    GrammarRefused,
    MalformedCall,
    Problem,
    ToolError,
    compact,
)
from .grammar import Compiler, Enforced, Grammar
from .intersect import intersect, narrowed
from .parse import ArgumentsDelta, CallBegun, Delta, Outcome, Parser, Prose, TextDelta, counted
from .places import Json
from .schema import check_schema, closed, loads
from .spec import Call, Choice, Tool, read_choice, read_tool, read_tools
from .validate import Validator

__all__ = [
    "HERMES",
    "SMOLLM",
    "ArgumentsDelta",
    "BadChoice",
    "BadSchema",
    "BadTool",
    "Bounds",
    "Call",
    "CallBegun",
    "Choice",
    "Compiler",
    "Delta",
    "Dialect",
    "Dispatch",
    "Enforced",
    "Grammar",
    "GrammarRefused",
    "Json",
    "MalformedCall",
    "Outcome",
    "Parser",
    "Problem",
    "Prose",
    "Reject",
    "TextDelta",
    "Tool",
    "ToolError",
    "Validator",
    "Verdict",
    "check_schema",
    "closed",
    "compact",
    "counted",
    "decide",
    "dialect_for",
    "intersect",
    "judge_result",
    "loads",
    "narrowed",
    "read_choice",
    "read_tool",
    "read_tools",
    "render_call",
    "render_examples",
    "render_result",
    "render_tools",
    "result_validators",
    "shape",
    "validators",
]
