"""Hands hints to the schedule, and back what became of them."""

from __future__ import annotations

from ..kvstore.hints import Reply
from ..scheduler import Answered, Hinted
from .loop import Loop


async def hinted(loop: Loop, message: str, tenant: str, number: int) -> tuple[Reply, ...]:
    """The replies to a message of a tenant. Runs in the loop."""
    effects = loop.post(Hinted(number, tenant, loop.root(tenant), message))
    return next(effect.replies for effect in effects if isinstance(effect, Answered))
