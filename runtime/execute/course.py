"""A call on its way: what is known of it from its beginning to its end."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from ...tools.contracts import Contract
from ...tools.grants import Asked, Grant, holder_of
from ...tools.limits import Limits
from .cancel import Scope
from .outcome import Job, Values


@dataclass(slots=True, eq=False)
class Course:
    """Of one call; nobody else's."""

    job: Job
    contract: Contract
    limits: Limits
    values: Values
    begun: float
    scope: Scope = field(default_factory=Scope)
    attempts: int = 0
    inside: bool = False
    """An attempt is under way."""
    given_up: bool = False
    behind: list[Future[Any]] = field(default_factory=list)
    """Threads that nobody waits for, and that have not ended."""
    grant: Grant | None = None
    denied: str = ""
    """Why no grant allowed it."""
    token: str | None = field(default=None, repr=False)
    decided: int = -1
    """The number of the record of that, where one is kept."""
    refused: tuple[str, ...] = ()
    """The scopes for want of which its server refused the last attempt."""

    @property
    def asked(self) -> Asked:
        """What it needs to be allowed."""
        job, place = self.job, self.job.place
        holder = holder_of(job.tool, place.tenant, server=place.server, session=place.session, task=place.task)
        return Asked(holder, job.call.arguments, self.contract.effects)
