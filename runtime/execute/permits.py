"""Whether a call may be made: by the grant of its task, else by whoever is asked for one, else not at all."""

from __future__ import annotations

from ...tools import Problem
from ...tools.grants import Refusal
from .authority import Authority
from .course import Course
from .outcome import Outcome
from .providers import Given, GrantProvider, GrantRequired
from .results import refuse
from .steps import Consult, Steps

CLOSED = ("forged", "foreign", "revoked", "changed", "early")
"""Refusals that nobody is asked about: something is wrong there, or was decided."""


def permit(authority: Authority, course: Course) -> Steps[Outcome | None]:
    """None, and the course has the grant it stands on; or the outcome of a call that is denied."""
    job = course.job
    if job.ceilings is None:
        return None
    found = Refusal("missing", (Problem("", f"nothing grants {job.tool.name} here"),))
    ceiling = job.ceilings.get(job.tool.name)
    if ceiling is not None:
        grant = authority.grant(job.place, job.tool, ceiling)
        refused = authority.check(grant, course.asked)
        if refused is None:
            course.grant = grant
            return None
        found = refused
    if found.code not in CLOSED:
        required = _required(course, found.problems)
        for provider in authority.providers:
            given = yield _consult(provider, required)
            if given is not None and _taken(authority, course, given):
                return None
    course.denied = found.code
    return refuse(job, found.problems)


def step_up(authority: Authority, course: Course) -> Steps[bool]:
    """Whether somebody got the token for which the tool's server asked."""
    required = _required(course, (Problem("", f"its server asks for {' '.join(course.refused)}"),))
    for provider in authority.providers:
        given = yield _consult(provider, required)
        if given is not None and given.token is not None:
            course.token = given.token
            return True
    return False


def _taken(authority: Authority, course: Course, given: Given) -> bool:
    grant = authority.once(course.job.place, course.job.tool, given.ceiling, by=given.by)
    if authority.check(grant, course.asked) is not None:
        return False  # what was given does not go as far as this call
    course.grant, course.token = grant, given.token
    return True


def _consult(provider: GrantProvider, required: GrantRequired) -> Consult:
    return Consult(lambda: provider.ask(required), lambda: provider.aask(required))


def _required(course: Course, gap: tuple[Problem, ...]) -> GrantRequired:
    job = course.job
    return GrantRequired(
        job.tool,
        job.call.arguments,
        gap,
        course.contract.effects,
        job.tenant,
        job.session,
        job.call.id,
        job.alone,
        course.refused,
        job.place.server,
    )
