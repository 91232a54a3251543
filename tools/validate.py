"""Do values fit a schema? jsonschema says what is wrong; jsonschema-rs, where there is one, that nothing is."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from functools import cache, lru_cache
from itertools import islice
from typing import Any

from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import Draft7Validator, Draft202012Validator, extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from .errors import Problem
from .ids import flattened
from .patterns import compiled, plain, reach
from .places import Json, Node, places, resolve
from .schema import check_schema, pointer, short
from .work import MAX_DEPTH, MAX_STEPS, MAX_WORK, measure, work

try:
    import jsonschema_rs as quick
except ImportError:
    quick = None  # type: ignore[assignment,unused-ignore]

MAX_PROBLEMS = 32


class Validator:
    """Checks values against one schema; built once, used often. Never fetches, asserts no formats.

    A value that could take too long is a problem and not a wait: so many values against so many schemas, a text
    too long for its pattern. The verdict is the same whether jsonschema-rs is installed or not, and so are the words.
    """

    def __init__(self, schema: Mapping[str, Any], *, fast: bool = True) -> None:
        """Raises BadSchema. `fast` off: jsonschema alone, whatever is installed."""
        check_schema(schema)
        root = flattened(schema)
        self._work = work(root)
        self._text, self._key = _reaches(root)
        self._quick: Any = None
        if fast and quick is not None and not self._work.forks:
            self._quick = quick.validator_for(_readable(root), validate_formats=False, retriever=_fetch_nothing)
        base = _class(validator_for(root, default=Draft202012Validator), counting=self._work.forks)
        self._validator = base(_readable(root, end=r"\Z"), registry=Registry())

    def problems(self, value: Json) -> tuple[Problem, ...]:
        """What does not fit, by place; empty when everything fits."""
        size = measure(value)
        if size.depth > MAX_DEPTH:
            return (Problem("", f"nested too deep: at most {MAX_DEPTH} levels"),)
        if size.values * self._work.steps > MAX_WORK:
            return (Problem("", "too much at once to be checked against its schema: send less"),)
        if size.key > self._key:
            return (Problem("", f"a key of {size.key} characters is too long for its pattern: at most {self._key}"),)
        quick = self._quick if size.text <= self._text else None
        if quick is not None and quick.is_valid(value):
            return ()
        errors = self._errors(value)
        if not errors and quick is not None:  # the stricter of the two decides
            first = next(iter(quick.iter_errors(value)))
            return (Problem(pointer(first.instance_path), short(first.message)),)
        return errors

    def _errors(self, value: Json) -> tuple[Problem, ...]:
        left = _LEFT.set([MAX_STEPS])
        try:
            errors = list(islice(self._validator.iter_errors(value), MAX_PROBLEMS))
        except RecursionError:
            return (Problem("", "nested too deep"),)
        except _TooMuch:
            return (Problem("", "nested too deep for a schema that refers to itself more than once"),)
        except Unresolvable as error:
            return (Problem("", short(f"the schema refers to what is not there: {error}")),)
        finally:
            _LEFT.reset(left)
        found = [Problem(pointer(e.absolute_path), short((best_match([e]) or e).message)) for e in errors]
        return tuple(sorted(found, key=lambda problem: problem.path))


def same(value: Any) -> str:
    """A text that is the same for equal JSON only: 1 is 1.0, and neither is true."""
    return json.dumps(_even(value), sort_keys=True)


class _TooMuch(Exception):
    """More references were followed than any honest value needs."""


_LEFT: ContextVar[list[int]] = ContextVar("left")
"""References that may still be followed in this check."""


@cache
def _class(base: Any, *, counting: bool) -> Any:
    """jsonschema's own, but for what takes it longer than it should, or what it reads as Python does."""
    words = {"dependencies": Draft7Validator.VALIDATORS["dependencies"], "pattern": _pattern, "uniqueItems": _unique}
    if counting:
        words |= {word: _counted(found) for word, found in base.VALIDATORS.items() if word in ("$ref", "$dynamicRef")}
    made: Any = extend
    return made(base, words)


def _counted(keyword: Any) -> Any:
    def follow(validator: Any, reference: Any, instance: Any, schema: Any) -> Any:
        left = _LEFT.get()
        left[0] -= 1
        if left[0] < 0:
            raise _TooMuch
        return keyword(validator, reference, instance, schema)

    return follow


def _pattern(validator: Any, pattern: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, str):
        return
    if len(instance) > (most := reach(pattern)):
        yield ValidationError(f"{len(instance)} characters are too many to look for {pattern!r} in: at most {most}")
    elif not compiled(pattern).search(instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _unique(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """By hashes: comparing each with each takes minutes for what a call may hold."""
    if wanted and isinstance(instance, list):
        seen: dict[str, int] = {}
        for place, item in enumerate(instance):
            first = seen.setdefault(same(item), place)
            if first != place:
                yield ValidationError(f"items {first} and {place} are the same, but must not be")
                return


def _even(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_even(item) for item in value]
    return {key: _even(item) for key, item in value.items()} if isinstance(value, dict) else value


@lru_cache(maxsize=1)
def _fetch_nothing(address: str) -> Any:
    raise LookupError(f"{address} is not in the schema, and nothing is fetched")


def _readable(root: Node, *, end: str = "$") -> Node:
    """A copy with patterns as both libraries read them: for Python, told by `end`, only those that are names.

    Python's others are read where they are used, so that it can be said which pattern was not met.
    """
    root = copy.deepcopy(root)
    for path, _ in reversed(list(places(root))):  # what is inside first: names change under it
        node = resolve(root, path)
        if end == "$" and isinstance(node.get("pattern"), str):
            node["pattern"] = plain(node["pattern"])
        named = node.get("patternProperties")
        if isinstance(named, dict):
            node["patternProperties"] = {plain(name, end=end): inner for name, inner in named.items()}
    return root


def _reaches(root: Node) -> tuple[int, int]:
    """The longest text, and the longest key, that every pattern for it can be held against in time."""
    found = [node for _, node in places(root)]
    texts = [reach(node["pattern"]) for node in found if isinstance(node.get("pattern"), str)]
    keys = [reach(name) for node in found for name in node.get("patternProperties", ())]
    return min(texts, default=MAX_WORK), min(keys, default=MAX_WORK)
