"""Grants beyond their process: as Biscuit tokens, which whoever holds one may narrow, checked where they are used.

A token is signed with a private key and read with the public one (biscuitsec.org). Its blocks can only add checks.
What Datalog cannot say, that arguments fit a JSON Schema, stands there as bytes: whoever checks says of which it is so.
What is not read as a schema is not said of, so its check fails.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import biscuit_auth as biscuit

from ...tools import BadTool, Json, Problem
from ...tools.contracts import EFFECTS, misfits
from ...tools.grants import Asked, Ceiling, Grant, Refusal, holder_of
from ...tools.grants_book import Terms
from ...tools.grants_names import canonical
from .clock import Clock
from .providers import Given, GrantRequired

LONGEST, BLOCKS = 65_536, 32
"""Characters of a token, and its blocks: larger ones are not read."""
_FITS = re.compile(r"\bfits\(hex:([0-9a-f]*)\)")


def signed(chain: Sequence[Grant], private: str) -> str:
    """A genuine chain of grants (`Book.chain`) as a token; `private` is an Ed25519 key as `new_keys` writes it.

    Calls that were spent here are not known elsewhere: what checks the token counts its own.
    """
    if not chain:
        raise ValueError("chain: found no grant; expected that of a grant which is not revoked, by Book.chain")
    held = chain[-1].holder
    made = biscuit.BiscuitBuilder("right({tool}, {digest})", {"tool": held.tool, "digest": held.digest})
    for grant in chain:
        for name in ("tenant", "server"):
            if value := getattr(grant.holder, name):
                made.add_code(f"check if {name}({{value}})", {"value": value})
        made.add_code("check if effects($e), $e <= {most}", {"most": EFFECTS.index(grant.effects)})
        made.add_code("check if now($t), $t >= {since}", {"since": _milliseconds(grant.since)})
        who = grant.holder
        _add(made, 0, Terms(who.session, who.task, grant.constraint, grant.calls, grant.until))
    return str(made.build(biscuit.PrivateKey(private)).to_base64())


def narrowed_token(token: str, public: str, terms: Terms) -> str:
    """The token with these terms besides; nobody need be asked for it, and no key but the public one is needed."""
    read = _read(token, public)
    block = biscuit.BlockBuilder("")
    _add(block, read.block_count(), terms)
    return str(read.append(block).to_base64())


def new_keys() -> tuple[str, str]:
    """A private key, which must be kept, and its public one."""
    pair = biscuit.KeyPair()
    return str(pair.private_key), str(pair.public_key)


class Biscuits:
    """A GrantProvider: a call that no grant allows here is allowed by a token that does. Counts are this object's."""

    def __init__(
        self, public: str, token: Callable[[GrantRequired], str | None] = lambda _: None, *, clock: Clock | None = None
    ) -> None:
        """`token` gives the one under which a call is made, if there is one."""
        self._public = public
        self._token = token
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._made: Counter[str] = Counter()
        self._gone: set[str] = set()

    def ask(self, required: GrantRequired) -> Given | None:
        token = None if required.scopes else self._token(required)
        if token is None:
            return None
        holder = holder_of(required.tool, required.tenant, server=required.server, session=required.session)
        asked = Asked(holder, required.arguments, required.effects)
        return Given(Ceiling(calls=1, effects=required.effects), "biscuit") if not self.spend(token, asked) else None

    async def aask(self, required: GrantRequired) -> Given | None:
        return self.ask(required)

    def spend(self, token: str, asked: Asked) -> Refusal | None:
        """Why the token does not allow a call; if it does, None, and one less is left of each of its blocks."""
        try:
            read = _read(token, self._public)
        except ValueError as error:
            return Refusal("forged", (Problem("", str(error)),))
        ids = list(read.revocation_ids)
        with self._lock:
            if not self._gone.isdisjoint(ids):
                return Refusal("revoked", (Problem("", "the token, or one that it was made of, was revoked"),))
            try:
                self._authorise(read, asked, ids)
            except (biscuit.AuthorizationError, biscuit.DataLogError) as error:
                return Refusal("constraint", (Problem("", f"the token does not allow this call: {error}"[:500]),))
            self._made.update(ids)
        return None

    def revoke(self, token: str) -> None:
        """This token and all that were made of it, or will be, are worth nothing here; what it was made of stays."""
        with self._lock:
            self._gone.add(_read(token, self._public).revocation_ids[-1])

    def _authorise(self, read: biscuit.Biscuit, asked: Asked, ids: Sequence[str]) -> None:
        held = asked.holder
        rules: Any = biscuit.AuthorizerBuilder(  # its stubs do not know of limits
            "tenant({tenant}); server({server}); session({session}); task({task}); effects({effects}); now({now});"
            "allow if right({tool}, {digest})",
            {name: getattr(held, name) for name in ("tenant", "server", "session", "task", "tool", "digest")}
            | {"effects": EFFECTS.index(asked.effects), "now": _milliseconds(self._clock.wall())},
        )
        for place, name in enumerate(ids):
            rules.add_code(f"call({place}, {self._made[name] + 1})")
            for text in set(_FITS.findall(read.block_source(place))):
                if _fits(text, asked.arguments):
                    rules.add_code("fits({schema})", {"schema": bytes.fromhex(text)})
        limits = rules.limits()
        limits.max_time *= 1000  # its own, a millisecond, refuses good tokens on a busy machine
        rules.set_limits(limits)
        rules.build(read).authorize()


def _add(block: biscuit.BiscuitBuilder | biscuit.BlockBuilder, place: int, terms: Terms) -> None:
    """To the block at this place of its token."""
    wanted: dict[str, str | int | bytes] = {}
    if terms.session:
        wanted["session({value})"] = terms.session
    if terms.task:
        wanted["task({value})"] = terms.task
    if terms.constraint:
        wanted["fits({value})"] = canonical(Ceiling(terms.constraint).constraint).encode()
    if terms.calls is not None:
        wanted[f"call({place}, $n), $n <= {{value}}"] = terms.calls
    if terms.until is not None:
        wanted["now($t), $t < {value}"] = _milliseconds(terms.until)
    for check, value in wanted.items():
        block.add_code(f"check if {check}", {"value": value})


def _fits(text: str, arguments: Mapping[str, Json]) -> bool:
    """Whether arguments fit a schema that stands in a token; anyone may have written it, so it is looked through."""
    try:
        return not misfits(Ceiling(json.loads(bytes.fromhex(text))).constraint, dict(arguments))
    except (BadTool, ValueError, TypeError, AttributeError, RecursionError):
        return False


def _read(token: str, public: str) -> biscuit.Biscuit:
    """Raises ValueError for what is no token of this key's."""
    if len(token) > LONGEST:
        raise ValueError(f"a token of {len(token)} characters: expected {LONGEST} at most")
    try:
        read = biscuit.Biscuit.from_base64(token, biscuit.PublicKey(public))
    except biscuit.BiscuitValidationError as error:
        raise ValueError(f"a token that was not signed with this key, or was changed: {error}") from error
    if read.block_count() > BLOCKS:
        raise ValueError(f"a token of {read.block_count()} blocks: expected {BLOCKS} at most")
    return read


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
