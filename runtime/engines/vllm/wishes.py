"""What requests and the control endpoint may ask for, read from their JSON; what makes no sense is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .leases import Answer, Leases

NAME = "sostenuto"
"""The key of our part in `kv_transfer_params`, the name of the plug-in, the first part of its path."""
PATH = f"/{NAME}/leases"
LONGEST_KEY = 512
VERBS = ("hold", "demote", "release", "close")
_AGES = 1e9


class Nonsense(ValueError):
    """A wish that cannot be read; the message says what was found and what was expected."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for: keep what I leave, under this session, for so long."""

    session: str
    seconds: float | None = None
    tokens: int | None = None
    """At most."""


def read_wish(params: object) -> Wish | None:
    """A request's `kv_transfer_params`; None when it asks nothing of us. Raises Nonsense."""
    if not isinstance(params, Mapping) or NAME not in params:
        return None
    wish = params[NAME]
    known = {"session", "lease_s", "tokens"}
    if not isinstance(wish, Mapping) or not known >= wish.keys():
        raise Nonsense(f"{NAME}: found {_show(wish)}; expected an object of {', '.join(sorted(known))}")
    tokens = wish.get("tokens")
    if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0):
        raise Nonsense(f"tokens: found {_show(tokens)}; expected how many at most, a whole number")
    return Wish(_session(wish), None if wish.get("lease_s") is None else _seconds(wish, "lease_s"), tokens)


def perform(leases: Leases, action: object, now: float) -> Answer:
    """Do one action of the control endpoint: {"session": ..., "verb": "hold", "seconds": ...}."""
    found = action if isinstance(action, Mapping) else {}
    session = found.get("session")
    named = session if isinstance(session, str) else ""
    verb = found.get("verb")
    try:
        key = _session(found)
        if verb == "hold":
            return leases.hold(key, _seconds(found, "seconds"), now)
        if verb == "demote":
            return leases.demote(key, now)
        if verb == "release":
            return leases.release(key, now)
        if verb == "close":
            return leases.close(key, now)
        raise Nonsense(f"verb: found {_show(verb)}; expected one of {', '.join(VERBS)}")
    except Nonsense as error:
        return leases.refuse(named, str(verb) if verb in VERBS else "", str(error))


def _session(found: Mapping[object, object]) -> str:
    key = found.get("session")
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY:
        raise Nonsense(f"session: found {_show(key)}; expected a text of 1 to {LONGEST_KEY} characters")
    return key


def _seconds(found: Mapping[object, object], name: str) -> float:
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _AGES:
        raise Nonsense(f"{name}: found {_show(value)}; expected seconds, 0 to {_AGES:g}")
    return float(value)


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
