"""Has a context copied into a tier, and says how much of it lies there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..kvstore import BlockHash, Seal
from ..kvstore.parked import Parked, park
from ..scheduler import Marked, Unmarked
from .errors import Busy
from .loop import Loop


def sealed(loop: Loop, tenant: str, codec: str) -> tuple[BlockHash, Seal]:
    """What a tenant's contexts are named and sealed with under the present weights and a codec. Runs in the loop."""
    root = loop.root(tenant, codec)
    seal = loop.seal(root)
    assert seal is not None  # it is the present one
    return BlockHash(bytes.fromhex(root)), seal


async def copied(loop: Loop, tier: str, root: BlockHash, tokens: tuple[int, ...], note: Mapping[str, Any]) -> Parked:
    """The context of these tokens under a root as far as its keys and values lie in a tier when this returns.

    That is all that was computed and not evicted. Runs in the loop. Raises what the tier raised where it did not take
    all of that, and Busy where the weights have changed meanwhile.
    """
    seal = loop.seal(root.hex())
    marked = f"copied|{root.hex()}|{len(tokens)}"
    loop.post(Marked(marked, root.hex(), tokens, tier))
    computed = loop.kernel.ledger.match(root, tokens).tokens(loop.kernel.ledger.page)
    fault = await loop.mover.settled(tier)
    loop.post(Unmarked((marked,)))
    if seal is None or loop.seal(root.hex()) != seal:
        raise Busy("the weights of the model changed while a context was copied: copy it again")
    whole, elsewhere = 0, loop.kernel.moves.elsewhere
    for found in elsewhere.match(root, tokens):
        # A block that is longer is another conversation's: its name is not that of these tokens.
        if not elsewhere.has(tier, found.block.name) or found.use < len(found.block.tokens):
            break
        whole += found.use
    if whole < computed and fault is not None:
        raise fault
    return park(root, tokens[:whole], seal, note)
