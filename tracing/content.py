"""What was said: messages, arguments, results and the text of exceptions, recorded only where somebody asked for it.

What is not recorded is not computed: callers hand over how to make it. Before it is written a piece of content goes
through the `TracePolicy` of the nodes around it, then through the program's own `redact`, then it is cut to a size.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from opentelemetry import context as otel
from opentelemetry.context import Context

from . import names
from .names import Value
from .options import Options, Redact

LONGEST = 65_536
"""Characters of an attribute. Of what is longer, texts are cut, and of lists the last items kept."""

_log = logging.getLogger(__name__)
_POLICIES = otel.create_key("sostenuto-trace-policies")

Make = Callable[[], Mapping[str, object]]
"""Makes the content: attribute names and their values, before JSON."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a node wants of what is recorded of it, and of all that happens in it; None: nothing."""

    inputs: Callable[[Any], Any] | None = None
    outputs: Callable[[Any], Any] | None = None


Policies = tuple[Policy, ...]


def under(policy: Policy | None, context: Context) -> Context:
    """A context in which this policy holds too."""
    if policy is None:
        return context
    return otel.set_value(_POLICIES, (policy, *policies(context)), context)


def policies(context: Context | None = None) -> Policies:
    """What holds in a context, by default in the present one; the innermost first."""
    found = otel.get_value(_POLICIES, context)
    return found if isinstance(found, tuple) else ()


def written(make: Make, options: Options, policies: Policies = ()) -> dict[str, Value]:
    """The content as attributes; nothing unless it is wanted.

    Never raises for what it is given: what cannot be made, redacted or written is left out.
    """
    if not options.content:
        return {}
    found = _contained("content", make) or {}
    writing = {name: partial(_text, name, value, policies, options.redact) for name, value in found.items()}
    texts = {name: _contained(name, write) for name, write in writing.items()}
    return {name: text for name, text in texts.items() if text is not None}


def of_exception(error: BaseException, options: Options, policies: Policies = ()) -> dict[str, Value]:
    """What the `exception` event says. What an exception says often quotes content, so it is content; without it
    there are its class, and the places in files where it came by."""
    facts: dict[str, Value] = {names.EXCEPTION_TYPE: type_name(error)}
    if policies:
        # A node that wants to be asked about payloads knows nothing of exceptions; nor shall those around it quote it.
        with suppress(AttributeError):  # one that takes no attributes
            error.__sostenuto_hushed__ = True  # type: ignore[attr-defined]
    if not options.content or any(getattr(each, "__sostenuto_hushed__", False) for each in _chain(error)):
        return facts | {names.EXCEPTION_STACK: _places(error)}
    for name, make in ((names.EXCEPTION_MESSAGE, str), (names.EXCEPTION_STACK, _stack)):
        text = _contained(name, partial(_quoted, name, make, error, options.redact))
        if text is not None:
            facts[name] = text
    return facts


def type_name(error: BaseException) -> str:
    """The class of an exception as `error.type` wants it: module and name, builtins bare."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _text(name: str, value: Any, policies: Policies, redact: Redact | None) -> str | None:
    """From a value to the text of its attribute; None leaves it out."""
    for policy in policies:
        process = policy.inputs if name in _INPUTS else policy.outputs
        value = value if process is None else process(value)
    if name in _LISTS and not isinstance(value, list | tuple):
        return None  # a policy made for a node's state has put something else in the place of messages
    if redact is not None:
        value = redact(name, value)
    return None if value is None else _json(value)


def _quoted(name: str, make: Callable[[Any], str], error: BaseException, redact: Redact | None) -> str | None:
    text: object = make(error)
    if redact is not None:
        text = redact(name, text)
    return None if text is None else _clean(str(text))


def _contained(what: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:  # it runs code of the program and of its messages: tracing must not break it
        if (fault := (what, type(error))) not in _told:
            _told.add(fault)  # once is enough: a hook that raises does so for every span
            _log.warning("%s is left out of the trace: recording it raised %s", what, type(error).__name__)
        return None


def _json(value: object) -> str:
    text = ""
    for most in (LONGEST, 4_096, 512, 64):
        text = json.dumps(_plain(value, most, 0), ensure_ascii=False)
        if len(text) <= LONGEST:
            return _clean(text)
    return _clean(json.dumps(text[: LONGEST // 2]))


def _plain(value: object, most: int, depth: int) -> object:
    """As JSON knows it: texts of at most so many characters, lists of at most so many items."""
    inner = depth + 1
    if depth > _DEEPEST:
        return "..."
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case str():
            return value if len(value) <= most else f"{value[:most]}... [{len(value)} characters]"
        case bytes():
            return f"[{len(value)} bytes]"
        case Mapping():
            return {str(key): _plain(each, most, inner) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(each, most, inner) for each in list(value)[-most:]]
    if callable(dump := getattr(value, "model_dump", None)):
        return _plain(dump(), most, inner)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {each.name: _plain(getattr(value, each.name), most, inner) for each in fields}
    return _plain(str(value), most, inner)


def _clean(text: str) -> str:
    """Half surrogates cannot be sent."""
    return text[:LONGEST].encode("utf-8", "replace").decode()


def _stack(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _places(error: BaseException) -> str:
    """A stack trace without what exceptions say and without lines of code, for both may quote content."""
    parts: list[str] = []
    for each in _chain(error):
        stack = [(frame.f_code, line) for frame, line in traceback.walk_tb(each.__traceback__)][-_MOST_FRAMES:]
        places = "".join(f'  File "{code.co_filename}", line {line}, in {code.co_name}\n' for code, line in stack)
        parts.append(f"Traceback (most recent call last):\n{places}{type_name(each)}\n")
    return _clean("\n".join(reversed(parts)))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it came from."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)


_told: set[tuple[str, type[Exception]]] = set()
_MOST_FRAMES = 100
_DEEPEST = 32
_INPUTS = frozenset(
    (
        names.SYSTEM_INSTRUCTIONS,
        names.INPUT_MESSAGES,
        names.TOOL_DEFINITIONS,
        names.TOOL_ARGUMENTS,
        names.INPUT_VALUE,
    )
)
_LISTS = frozenset(
    (names.SYSTEM_INSTRUCTIONS, names.INPUT_MESSAGES, names.OUTPUT_MESSAGES, names.TOOL_DEFINITIONS),
)
