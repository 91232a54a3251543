"""Which grants were made, how much of them is spent, which were revoked. It forgets none of it for a rollback."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .contracts import Effects
from .errors import Problem
from .grants import Asked, Ceiling, Grant, Holder, Refusal, genuine, refusal
from .places import Json


@dataclass(frozen=True, slots=True)
class Terms:
    """What a grant made of another may still be narrowed by; nothing said is as before."""

    session: str = ""
    task: str = ""
    constraint: Mapping[str, Json] | None = None
    calls: int | None = None
    until: float | None = None
    reason: str = ""


class Book:
    """Makes grants under one key, and knows of each what is left. One caller at a time."""

    def __init__(self, key: bytes) -> None:
        """Raises ValueError for a key that could be guessed."""
        if len(key) < 16:
            raise ValueError(f"key: found {len(key)} bytes; expected at least 16 that nobody can guess")
        self._key = key
        self._serial = 0
        self._grants: dict[str, Grant] = {}
        self._spent: dict[str, int] = {}
        self._gone: dict[tuple[str, str, str], int] = {}
        """The last serial that is revoked, by tenant, session and tool; empty text is all of them."""

    def mint(self, holder: Holder, ceiling: Ceiling, now: float, *, issuer: str, reason: str = "") -> Grant:
        """A grant that stands on the key alone."""
        until = None if ceiling.seconds is None else now + ceiling.seconds
        made = self._made("", holder, ceiling.constraint, ceiling.effects)
        made = replace(made, calls=ceiling.calls, since=now, until=until, issuer=issuer, reason=reason)
        return self._keep(made.signed(self._key))

    def attenuate(self, parent: Grant, terms: Terms) -> Grant:
        """A grant that allows what its parent does and these terms too, and spends its parent's budget with its own."""
        holder = replace(
            parent.holder, session=parent.holder.session or terms.session, task=parent.holder.task or terms.task
        )
        made = self._made(parent.id, holder, terms.constraint or {}, parent.effects)
        made = replace(
            made,
            calls=min((each for each in (terms.calls, parent.calls) if each is not None), default=None),
            since=parent.since,
            until=min((each for each in (terms.until, parent.until) if each is not None), default=None),
            issuer=parent.issuer,
            reason=terms.reason or parent.reason,
        )
        return self._keep(made.signed(bytes.fromhex(parent.mac)))

    def chain(self, grant: Grant) -> tuple[Grant, ...]:
        """From the first one to this, which is taken as it was handed in; empty if one of them is not known here."""
        found = [grant]
        while found[-1].parent:
            parent = self._grants.get(found[-1].parent)
            if parent is None:
                return ()
            found.append(parent)
        return tuple(reversed(found))

    def check(self, grant: Grant, asked: Asked, now: float) -> Refusal | None:
        """Why a grant does not allow a call; None if it does. Nothing is taken for granted of what is handed in."""
        chain = self.chain(grant)
        if chain and not genuine(chain, self._key):
            return Refusal("forged", (Problem("", "the grant was not made here, or was changed"),))
        if not chain or any(self._revoked(each) for each in chain):
            return Refusal("revoked", (Problem("", "the grant was revoked"),))
        if any(self.left(each) == 0 for each in chain):
            return Refusal("spent", (Problem("", "all calls that were granted are made"),))
        return refusal(chain, asked, now)

    def spend(self, grant: Grant, asked: Asked, now: float) -> Refusal | None:
        """As `check`, and takes one call from the grant and from all above it. Nothing gives it back."""
        found = self.check(grant, asked, now)
        if found is None:
            for each in self.chain(grant):
                self._spent[each.id] = self._spent.get(each.id, 0) + 1
        return found

    def left(self, grant: Grant) -> int | None:
        """Calls that are left of this very grant; None: any number."""
        return None if grant.calls is None else max(0, grant.calls - self._spent.get(grant.id, 0))

    def revoke(self, *grants: Grant) -> None:
        """These and all that was made of them: whose parent is not known any more is worth nothing."""
        for grant in grants:
            self._grants.pop(grant.id, None)
            self._spent.pop(grant.id, None)

    def revoke_all(self, tenant: str, *, session: str = "", tool: str = "") -> None:
        """All of a tenant's so far, or those of one session or tool; what is granted from now on holds."""
        self._gone[tenant, session, tool] = self._serial

    def _revoked(self, grant: Grant) -> bool:
        held = grant.holder
        places = {(held.tenant, session, tool) for session in ("", held.session) for tool in ("", held.tool)}
        return grant.id not in self._grants or any(self._gone.get(place, 0) >= grant.serial for place in places)

    def _made(self, parent: str, holder: Holder, constraint: Mapping[str, Json], effects: Effects) -> Grant:
        self._serial += 1
        return Grant(f"g{self._serial}", self._serial, parent, holder, constraint, effects, None, 0.0, None, "", "")

    def _keep(self, grant: Grant) -> Grant:
        self._grants[grant.id] = grant
        return grant

    def __repr__(self) -> str:
        return f"<Book {len(self._grants)} grants, {sum(self._spent.values())} calls spent>"
