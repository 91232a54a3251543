"""Has a context copied into a tier, and says how much of it lies there."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
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
    tokens = ledger.groups.known(tokens)
    computed = find(ledger, root, tokens).tokens(ledger.page)
    fault = await loop.mover.settled(tier)
    loop.post(Unmarked((marked,)))
    if seal is None or loop.seal(root.hex()) != seal:
        raise Busy("the weights of the model changed while a context was copied: copy it again")
    parked = _there(loop, tier, park(root, tokens, seal, note=note, groups=ledger.groups), computed)
    if len(parked) < computed and fault is not None:
        raise fault
    return parked


def _there(loop: Loop, tier: str, parked: Parked, computed: int) -> Parked:
    """As much of a context as can be gone on from with what lies in a tier, under names that are its own.

    A block that is longer than its end is another conversation's.
    """
    ledger, elsewhere = loop.kernel.ledger, loop.kernel.moves.elsewhere
    page = ledger.page
    if ledger.groups.plain:
        whole = sum(1 for _ in takewhile(lambda name: elsewhere.has(tier, name), parked.names))
        far = whole * page if whole < len(parked.names) else len(parked)
        ends = [found.use for found in elsewhere.match(parked.root, parked.tokens)[whole:]]
        lengths = {far, *(far + end for end in ends[:1]), *([computed] if computed // page == whole else [])}
    else:
        far = look(ledger, parked.root, parked.tokens, elsewhere=elsewhere).length
        lengths = {far, far - far % page, computed}
    for length in sorted(lengths, reverse=True):
        shorter = cut(parked, length)
        if all(elsewhere.has(tier, name) for name in shorter.names):
            return shorter
    return cut(parked, 0)
