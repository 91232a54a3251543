"""What is written down of a call: who was allowed what and why, and what came of it. Digests, never what was said."""

from __future__ import annotations

from typing import Any

from ...tools import Call
from ...tools.grants_names import digest
from .audit import Audit
from .authority import Authority, Place
from .course import Course
from .outcome import Code, Outcome


def record_decision(audit: Audit | None, course: Course, authority: Authority) -> int:
    """Allowed, by whom and under which grants; or why not. The record's number, -1 where none is kept."""
    if audit is None:
        return -1
    grant = course.grant
    return audit.append(
        "decided",
        {
            **_whose(course.job.call, course.job.place),
            "effects": course.contract.effects,
            "allowed": not course.denied,
            "why": course.denied or (grant.issuer if grant is not None else "nothing here needs a grant"),
            "grants": [] if grant is None else list(authority.chain(grant)),
            "tool_digest": course.asked.holder.digest,
        },
    )


def record_rejection(audit: Audit | None, call: Call, place: Place, why: str) -> None:
    """A call that could not even be asked for: no such tool, or arguments that do not fit."""
    if audit is not None:
        audit.append("decided", {**_whose(call, place), "allowed": False, "why": why, "grants": []})


def record_outcome(audit: Audit | None, course: Course, decided: int, outcome: Outcome, seconds: float) -> None:
    """What came of it."""
    if audit is not None:
        text = course.values.text(outcome.value) if outcome.answered else None
        body: dict[str, Any] = {"decided": decided, "call": course.job.call.id, "tool": course.job.tool.name}
        body |= {"code": outcome.code, "attempts": course.attempts, "seconds": round(seconds, 6)}
        audit.append("ended", {**body, "result": None if text is None else digest(text)})


def broken_off(course: Course, *, put_off: bool) -> Code:
    """What is written of a call that its caller left."""
    if put_off:
        return "put_off"
    return "unknown" if course.inside and not course.contract.harmless else "cancelled"


def _whose(call: Call, place: Place) -> dict[str, Any]:
    try:
        arguments = digest(call.arguments)
    except (ValueError, RecursionError):  # no JSON, and so rejected
        arguments = "none"
    told = {"call": call.id, "tool": call.name, "arguments": arguments, "tenant": place.tenant}
    told |= {"session": place.session, "task": place.task, "server": place.server}
    return {name: _writable(text) for name, text in told.items()}


def _writable(text: str) -> str:
    """A model, or a peer, may have written it: short, and whole characters only."""
    return text[:200].encode(errors="replace").decode()
