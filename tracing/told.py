"""Spans of work that somebody else did at times that are known: told afterwards, or begun here and ended there.

Times are nanoseconds since the epoch. Nothing becomes current.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.trace import Link, SpanContext

from . import names
from .names import Facts
from .spans import Happened, Open, start

Place = SpanContext
"""Where in a trace something stands: what another span is put under, or linked to."""

Links = Sequence[tuple[Place, str]]
"""Places, and why each of them is linked to."""


def here() -> Place | None:
    """The place of the current span, if there is one."""
    found = trace.get_current_span().get_span_context()
    return found if found.is_valid else None


def begin_span(name: str, facts: Facts, *, under: Place, begun: int, links: Links = ()) -> Open:
    """A span that began then; whoever begins it calls its `ended`."""
    made = [Link(place, {names.LINK: why}) for place, why in links]
    return Open(start(name, facts, parent=under, begun=begun, links=made))


def tell_span(
    name: str,
    facts: Facts,
    *,
    under: Place,
    begun: int,
    ended: int,
    links: Links = (),
    events: Sequence[Happened] = (),
) -> None:
    """A whole span at once."""
    begin_span(name, facts, under=under, begun=begun, links=links).ended({}, at=ended, events=events)
