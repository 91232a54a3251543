"""Has a context copied into a tier, and says how much of it lies there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..kvstore import BlockHash, Seal, find, look
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


def cut(parked: Parked, length: int) -> Parked:
    """The first tokens of a context."""
    return park(parked.root, parked.tokens[:length], parked.seal, note=parked.note, groups=parked.groups)


async def copied(loop: Loop, tier: str, root: BlockHash, tokens: tuple[int, ...], note: Mapping[str, Any]) -> Parked:
    """The context of these tokens under a root as far as its keys and values lie in a tier when this returns.

    That is all that was computed and not evicted. Runs in the loop. Raises what the tier raised where it did not take
    all of that, and Busy where the weights have changed meanwhile.
    """
    seal = loop.seal(root.hex())
    marked = f"copied|{root.hex()}|{len(tokens)}"
    loop.post(Marked(marked, root.hex(), tokens, tier))
    ledger = loop.kernel.ledger
    computed = find(ledger, root, tokens).tokens(ledger.page)
    fault = await loop.mover.settled(tier)
    loop.post(Unmarked((marked,)))
    if seal is None or loop.seal(root.hex()) != seal:
        raise Busy("the weights of the model changed while a context was copied: copy it again")
    parked = park(root, tokens[: _whole(loop, tier, root, tokens)], seal, note=note)
    if not ledger.groups.plain:
        parked = _grouped(loop, tier, park(root, tokens, seal, note=note, groups=ledger.groups), computed)
    if len(parked) < computed and fault is not None:
        raise fault
    return parked


def _whole(loop: Loop, tier: str, root: BlockHash, tokens: tuple[int, ...]) -> int:
    """How many of these tokens have keys and values in a tier, under names that are theirs."""
    whole, elsewhere = 0, loop.kernel.moves.elsewhere
    for found in elsewhere.match(root, tokens):
        # A block that is longer is another conversation's: its name is not that of these tokens.
        if not elsewhere.has(tier, found.block.name) or found.use < len(found.block.tokens):
            break
        whole += found.use
    return whole


def _grouped(loop: Loop, tier: str, parked: Parked, computed: int) -> Parked:
    """As much of a context as every group of its layers can go on from with what lies in a tier."""
    ledger, elsewhere = loop.kernel.ledger, loop.kernel.moves.elsewhere
    far = look(ledger, parked.root, parked.tokens, elsewhere=elsewhere).length
    for length in sorted({far, far - far % ledger.page, computed}, reverse=True):
        shorter = cut(parked, length)
        if all(elsewhere.has(tier, name) for name in shorter.names):
            return shorter
    return cut(parked, 0)
