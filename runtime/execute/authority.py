"""Who may call what, now: grants of the tasks that run, made when they begin and gone when they end."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from ...tools import Problem, Tool
from ...tools.grants import Asked, Ceiling, Grant, Holder, Refusal, holder_of, narrowed
from ...tools.grants_book import Book, Terms
from ...tools.grants_names import tool_digest
from .clock import Clock
from .providers import GrantProvider

_Key: TypeAlias = tuple[str, str, str, str, str]
"""Tenant, session, server, tool, ceiling."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call is made: a tenant's session, and the run of a node in it."""

    tenant: str = "default"
    session: str = ""
    task: str = ""
    server: str = ""
    """Whose tools they are."""


class Authority:
    """Grants of one process under one secret key. Threads may share it; so may guards, which then share budgets."""

    def __init__(
        self, *, providers: Sequence[GrantProvider] = (), key: bytes | None = None, clock: Clock | None = None
    ) -> None:
        self.providers = tuple(providers)
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._book = Book(key or secrets.token_bytes(32))
        self._families: dict[tuple[str, str], str] = {}
        """The session from which one was forked in the end, where it is not its own."""
        self._roots: dict[_Key, Grant] = {}
        """What a ceiling gives a family of sessions: made once, spent once."""
        self._sessions: dict[_Key, Grant] = {}
        """What each of these has of it."""
        self._fewer: dict[tuple[str, str], Mapping[str, int]] = {}
        self._tasks: dict[Place, dict[str, Grant]] = {}
        self._inside: dict[Place, int] = {}
        self._until: dict[str, float] = {}
        """When a grant ends by the clock that nobody can set back."""
        self._known: dict[tuple[str, str], str] = {}
        """The digest under which each server's tools were first seen."""

    @contextmanager
    def task(self, place: Place) -> Iterator[None]:
        """In here a node runs; what it is granted ends with it."""
        with self._lock:
            self._inside[place] = self._inside.get(place, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._inside[place] -= 1
                if not self._inside[place]:
                    del self._inside[place]
                    self._book.revoke(*self._tasks.pop(place, {}).values())

    def grant(self, place: Place, tool: Tool, ceiling: Ceiling) -> Grant:
        """The task's own grant for a tool, made of what its session has."""
        with self._lock:
            session = self._session(place, tool, ceiling)
            mine = self._tasks.setdefault(place, {})
            if tool.name not in mine or mine[tool.name].parent != session.id:
                mine[tool.name] = self._book.attenuate(session, Terms(task=place.task))
            return mine[tool.name]

    def once(self, place: Place, tool: Tool, ceiling: Ceiling, *, by: str) -> Grant:
        """A grant for one task, by somebody who was asked."""
        holder = holder_of(tool, place.tenant, server=place.server, session=place.session, task=place.task)
        with self._lock:
            made = self._book.mint(holder, ceiling, self._clock.wall(), issuer=by)
            self._ends(made, ceiling)
            self._tasks.setdefault(place, {})[f"{tool.name} {made.id}"] = made
            return made

    def check(self, grant: Grant, asked: Asked) -> Refusal | None:
        """Why a grant does not allow a call; None if it does."""
        with self._lock:
            return self._late(grant) or self._book.check(grant, asked, self._clock.wall())

    def spend(self, grant: Grant, asked: Asked) -> Refusal | None:
        """As `check`; if it allows the call, one less is left."""
        with self._lock:
            return self._late(grant) or self._book.spend(grant, asked, self._clock.wall())

    def chain(self, grant: Grant) -> tuple[str, ...]:
        """The ids of a grant and all above it."""
        with self._lock:
            return tuple(each.id for each in self._book.chain(grant))

    def fork(self, tenant: str, source: str, target: str, *, calls: Mapping[str, int] | None = None) -> None:
        """A session stands on the same grants as another: what either spends, both have spent.

        `calls`: of these tools it gets fewer. Say it before the new session makes its first call.
        """
        with self._lock:
            self._families[tenant, target] = self._families.get((tenant, source), source)
            self._fewer[tenant, target] = {**self._fewer.get((tenant, source), {}), **(calls or {})}

    def follow(self, tenant: str, source: str, target: str) -> None:
        """As `fork`, of a session that turns out to be a copy; what was said of it before stands."""
        with self._lock:
            if (tenant, target) not in self._families:
                self._families[tenant, target] = self._families.get((tenant, source), source)
                for key in [key for key in self._sessions if key[:2] == (tenant, target)]:
                    del self._sessions[key]  # of what it had while it was nobody's copy, nothing is left

    def trust(self, tool: Tool, server: str = "") -> None:
        """A tool that has changed is looked through and taken as it is now; what it was granted before is gone."""
        with self._lock:
            self._known[server, tool.name] = tool_digest(tool)
            for known in (self._roots, self._sessions):
                for key in [key for key in known if key[2:4] == (server, tool.name)]:
                    del known[key]

    def revoke(self, tenant: str, *, session: str = "", tool: str = "") -> None:
        """All that a tenant was granted so far, in one session, of one tool, or at all. What is spent stays spent."""
        with self._lock:
            self._book.revoke_all(tenant, session=session, tool=tool)

    def open_to(self, place: Place, tools: Sequence[Tool], ceilings: Mapping[str, Ceiling]) -> tuple[Tool, ...]:
        """The tools that may be called now, as narrow as that: for a grammar, not for what a model is shown."""
        found = []
        with self._lock:
            for tool in tools:
                ceiling = ceilings.get(tool.name)
                if ceiling is None:
                    continue
                chain = self._book.chain(self._session(place, tool, ceiling))
                if chain and all(self._book.left(each) != 0 for each in chain) and not self._late(chain[-1]):
                    found.append(narrowed(tool, [each.constraint for each in chain]))
        return tuple(found)

    def _session(self, place: Place, tool: Tool, ceiling: Ceiling) -> Grant:
        family = self._families.get((place.tenant, place.session), place.session)
        terms = (place.server, tool.name, str(ceiling))
        key, above = (place.tenant, place.session, *terms), (place.tenant, family, *terms)
        if above not in self._roots:
            digest = self._known.setdefault((place.server, tool.name), tool_digest(tool))
            holder = Holder(place.tenant, tool.name, digest, place.server)
            self._roots[above] = self._book.mint(holder, ceiling, self._clock.wall(), issuer="node")
            self._ends(self._roots[above], ceiling)
        if key not in self._sessions:
            fewer = self._fewer.get((place.tenant, place.session), {}).get(tool.name)
            self._sessions[key] = self._book.attenuate(self._roots[above], Terms(place.session, calls=fewer))
        return self._sessions[key]

    def _ends(self, grant: Grant, ceiling: Ceiling) -> None:
        if ceiling.seconds is not None:
            self._until[grant.id] = self._clock.monotonic() + ceiling.seconds

    def _late(self, grant: Grant) -> Refusal | None:
        now = self._clock.monotonic()
        late = any(now >= self._until.get(each.id, now + 1) for each in self._book.chain(grant))
        return Refusal("expired", (Problem("", "the grant's time is over"),)) if late else None

    def __repr__(self) -> str:
        return f"<Authority {len(self._inside)} tasks | {self._book!r}>"
