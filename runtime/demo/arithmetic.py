"""Arithmetic from a text, by a small evaluator that cannot do anything else."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable

LONGEST = 120
LARGEST = 1e15
LARGEST_EXPONENT = 64

Number = int | float

# Only these characters and names reach the parser, so it meets no literal it would warn about.
_TEXT = re.compile(r"(?:[0-9.\s+\-*/%(),]|(?<![\w.])(?:abs|max|min|round|sqrt)(?=\s*\())+")
_BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Number], Number]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_CALLS: dict[str, Callable[..., Number]] = {
    "abs": abs,
    "max": max,
    "min": min,
    "round": round,
    "sqrt": math.sqrt,
}


def evaluate(expression: str) -> Number:
    """The value of an expression of numbers, ``+ - * / // % **``, brackets, and abs, max, min, round, sqrt.

    Work and result are bounded: at most ``LONGEST`` characters, exponents up to ``LARGEST_EXPONENT``, and no
    value on the way beyond ``LARGEST``. Raises ``ValueError`` with a message for the one who wrote it.
    """
    if len(expression) > LONGEST:
        raise ValueError(f"the expression has {len(expression)} characters; at most {LONGEST} fit, do it in parts")
    if not _TEXT.fullmatch(expression):
        raise ValueError(
            f"{expression!r} is not plain arithmetic; write numbers, + - * / // % **, brackets, "
            "and abs(), max(), min(), round(), sqrt()"
        )
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"{expression!r} cannot be read at character {error.offset}: {error.msg}") from error
    except ZeroDivisionError as error:
        raise ValueError(f"{expression!r} divides by zero") from error
    except TypeError as error:
        raise ValueError(f"{expression!r} calls a function with the wrong arguments: {error}") from error


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() | float() as value):
            return _bounded(value)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand))
        case ast.BinOp(left=left, op=op, right=right):
            first, second = _value(left), _value(right)
            if isinstance(op, ast.Pow):
                _check_power(first, second)
            return _bounded(_BINARY[type(op)](first, second))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _CALLS:
            values = [_value(each) for each in args]
            if name == "sqrt" and values and values[0] < 0:
                raise ValueError(f"sqrt({values[0]}) has no real value")
            return _bounded(_CALLS[name](*values))
        case _:
            raise ValueError(f"{ast.unparse(node)!r} is not plain arithmetic; write 25000, not 25,000")


def _check_power(base: Number, exponent: Number) -> None:
    if abs(exponent) > LARGEST_EXPONENT:
        raise ValueError(f"the exponent {exponent} is beyond {LARGEST_EXPONENT}")
    if base < 0 and exponent != int(exponent):
        raise ValueError(f"({base}) ** {exponent} has no real value")


def _bounded(value: Number) -> Number:
    if not -LARGEST <= value <= LARGEST:  # false for nan, too
        raise ValueError(f"a value on the way is beyond {LARGEST:.0e}; do it in smaller units")
    return value
