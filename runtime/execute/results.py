"""What is said of a call that did not go well, and which results are none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import httpx

from ...tools import Json, MalformedCall, Problem, compact, judge_result, loads
from ...tools.contracts import Contract, checker, misfits
from ...tools.errors import SHOWN
from .outcome import Job, Outcome, Values

LOST = (
    ConnectionError,
    EOFError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    httpx.TransportError,
)
"""The far end is gone: what it did last is not known."""
MCP_CLOSED = -32000
"""What the Model Context Protocol's package says when a connection ends under a request."""
SAID = 600
"""Characters of an error that the model is shown."""


def cut_off(job: Job, contract: Contract, why: str, *, given_up: bool = False) -> Outcome:
    """It was begun and did not come to its end."""
    name = job.tool.name
    if contract.harmless:
        return Outcome("cancelled" if given_up else "late", told=f"{name} failed: {why}"[:SAID])
    told = f"{name} was cut off: {why}. Whether it took effect is not known; look before you call it again."
    return Outcome("unknown", told=told[:SAID])


def not_begun(job: Job, why: str, *, given_up: bool = False) -> Outcome:
    """It has done nothing."""
    return Outcome("cancelled" if given_up else "late", told=f"{job.tool.name} was not called: {why}"[:SAID])


def refuse(job: Job, problems: Sequence[Problem]) -> Outcome:
    """No grant allows it. What it would need is said, and nothing of who could give it."""
    told = "; ".join(map(str, problems[:SHOWN]))
    return Outcome("denied", told=f"{job.tool.name} was not called, since it is not allowed here: {told}."[:SAID])


def failed(job: Job, contract: Contract, error: Exception) -> Outcome:
    """It raised."""
    if not contract.harmless and lost(error):
        return cut_off(job, contract, f"{type(error).__name__}: {error}")
    return Outcome("failed", told=f"{job.tool.name} failed: {type(error).__name__}: {error}"[:SAID])


def lost(error: BaseException) -> bool:
    """The far end went away in the middle."""
    if isinstance(error, BaseExceptionGroup):
        return any(lost(each) for each in error.exceptions)
    told = getattr(error, "error", None)  # of the Model Context Protocol, whose package need not be here
    return isinstance(error, LOST) or getattr(told, "code", None) == MCP_CLOSED


def later(job: Job, why: str, seconds: float) -> Outcome:
    """It may be called again after so many seconds."""
    told = f"{job.tool.name} was not called: {why}. Try again after {max(seconds, 0.1):.1f} s."
    return Outcome("limited", told=told, retry_after=seconds)


def faulty(job: Job, contract: Contract, value: Any, values: Values, longest: int) -> Outcome | None:
    """What is wrong with a result: its size, or its shape where the tool or its contract names one."""
    text = values.text(value)
    name = job.tool.name
    if text is not None and len(text) > longest:
        told = f"{name} was called, but its result has {len(text)} characters: at most {longest} fit. Ask for less."
        return Outcome("misshapen", told=told)
    problems: Sequence[Problem] = ()
    if contract.returns is not None:
        found: Json = value
        if text is not None:
            try:
                found = loads(text, longest)
            except MalformedCall as fault:
                return Outcome("misshapen", told=f"{name} was called, but its result is {fault}"[:SAID])
        problems = misfits(contract.returns, found)
    if job.tool.returns is not None and not problems:
        problems = judge_result(values.structured(value), checker(job.tool.returns))
    if not problems:
        return None
    wrong = compact(problems).replace("The tool was not called.", f"{name} was called, but its result does not fit:")
    return Outcome("misshapen", told=wrong)
