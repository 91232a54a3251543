"""Has a context copied into a tier, and says how much of it lies there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..kvstore import BlockHash
from ..kvstore.parked import Parked, park
from ..scheduler import Marked, Unmarked
from .loop import Loop


async def copied(loop: Loop, tier: str, tenant: str, tokens: tuple[int, ...], note: Mapping[str, Any]) -> Parked:
    """The context of a tenant's tokens as far as its keys and values lie in a tier when this returns.

    That is all that was computed and neither evicted nor refused by the tier. Runs in the loop.
    """
    root = loop.root(tenant)
    parent = BlockHash(bytes.fromhex(root))
    marked = f"copied|{len(tenant)}:{tenant}|{root}|{len(tokens)}"
    loop.post(Marked(marked, root, tokens, tier))
    await loop.mover.settled()
    loop.post(Unmarked((marked,)))
    whole, elsewhere = 0, loop.kernel.moves.elsewhere
    for found in elsewhere.match(parent, tokens):
        # A block that is longer is another conversation's: its name is not that of these tokens.
        if not elsewhere.has(tier, found.block.name) or found.use < len(found.block.tokens):
            break
        whole += found.use
    return park(parent, tokens[:whole], loop.seal(root), note)
