"""What appears in an index and leaves it, told to others: events in vLLM's shapes, and an index rebuilt from them.

Full blocks only: an unfinished one has no name and is no event. Where vLLM has no parent, before the first block of a
context, these have the root of its names, which keeps tenants and models apart. Equal content in two pages is stored
twice and is there until it has been removed twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from .errors import BrokenBooks
from .hashes import BlockHash

DEVICE = "device"
"""The tier in which the model computes. All others are below it."""


@dataclass(frozen=True, slots=True)
class BlockStored:
    """Blocks of `block_size` tokens that follow each other can be found now; the first follows `parent_block_hash`."""

    block_hashes: tuple[BlockHash, ...]
    parent_block_hash: BlockHash
    token_ids: tuple[int, ...]
    block_size: int
    medium: str = DEVICE
    session_id: str | None = None
    """Who computed them, if that is known."""


@dataclass(frozen=True, slots=True)
class BlockRemoved:
    """One copy of each of these blocks is there no longer."""

    block_hashes: tuple[BlockHash, ...]
    medium: str = DEVICE


@dataclass(frozen=True, slots=True)
class AllBlocksCleared:
    """Nothing is there any more, in one medium or, where none is said, in any."""

    medium: str | None = None


FeedEvent = BlockStored | BlockRemoved | AllBlocksCleared
Listener = Callable[[FeedEvent], None]

_KINDS: dict[str, type[BlockStored] | type[BlockRemoved] | type[AllBlocksCleared]] = {
    kind.__name__: kind for kind in (BlockStored, BlockRemoved, AllBlocksCleared)
}


@dataclass(frozen=True, slots=True)
class Indexed:
    """A block in an index: what it follows, what it holds, and in how many pages."""

    parent: BlockHash
    tokens: tuple[int, ...]
    copies: int


class Feed:
    """A listener that collects events until they are drained; neighbours in a chain become one event, as in vLLM."""

    def __init__(self) -> None:
        self._events: list[FeedEvent] = []

    def __call__(self, event: FeedEvent) -> None:
        self._events.append(event)

    def __len__(self) -> int:
        return len(self._events)

    def drain(self) -> tuple[FeedEvent, ...]:
        """What has happened since the last time, in its order."""
        events, self._events = self._events, []
        return tuple(_merged(events))


class Mirror:
    """An index rebuilt from events, medium by medium. Fed with everything from the start, it equals the original."""

    def __init__(self) -> None:
        self._media: dict[str, dict[BlockHash, Indexed]] = {}

    def blocks(self, medium: str = DEVICE) -> Mapping[BlockHash, Indexed]:
        """What can be found in a medium."""
        return self._media.get(medium, {})

    def apply(self, event: FeedEvent) -> None:
        """Take in one event. Raises BrokenBooks, and changes nothing, if it cannot follow what came before."""
        match event:
            case BlockStored():
                self._store(event)
            case BlockRemoved():
                self._remove(event)
            case AllBlocksCleared(medium=None):
                self._media.clear()
            case AllBlocksCleared(medium=str(medium)):
                self._media.pop(medium, None)

    def _store(self, event: BlockStored) -> None:
        size, names = event.block_size, event.block_hashes
        if len(event.token_ids) != size * len(names):
            raise BrokenBooks(f"{len(names)} blocks of {size} tokens came with {len(event.token_ids)} tokens")
        blocks = self._media.setdefault(event.medium, {})
        parents = (event.parent_block_hash, *names)
        new = []
        for index, (name, parent) in enumerate(zip(names, parents, strict=False)):
            tokens = event.token_ids[index * size : (index + 1) * size]
            known = blocks.get(name, Indexed(parent, tokens, 0))
            if (known.parent, known.tokens) != (parent, tokens):
                raise BrokenBooks(f"block {name.hex()} was stored with other tokens before")
            new.append((name, known))
        for name, known in new:
            blocks[name] = Indexed(known.parent, known.tokens, known.copies + 1)

    def _remove(self, event: BlockRemoved) -> None:
        blocks = self._media.get(event.medium, {})
        for name, times in Counter(event.block_hashes).items():
            if name not in blocks or blocks[name].copies < times:
                what = f"block {name.hex()} was removed from {event.medium} more often than it was stored"
                raise BrokenBooks(f"{what}: events are missing, begin anew")
        for name in event.block_hashes:
            known = blocks[name]
            if known.copies > 1:
                blocks[name] = Indexed(known.parent, known.tokens, known.copies - 1)
            else:
                del blocks[name]


def plain(event: FeedEvent) -> dict[str, Any]:
    """An event as a JSON object: its kind under `type`, its hashes in hex."""
    found = asdict(event)
    for key in ("block_hashes", "token_ids"):
        if key in found:
            found[key] = [each.hex() if isinstance(each, bytes) else each for each in found[key]]
    if "parent_block_hash" in found:
        found["parent_block_hash"] = found["parent_block_hash"].hex()
    return {"type": type(event).__name__, **found}


def event(data: Mapping[str, Any]) -> FeedEvent:
    """The event of such an object; fields that are not known are ignored, as newer senders may have more.

    Raises ValueError for a kind that is not known, a field that is missing, and hashes that are not hex.
    """
    kind = _KINDS.get(data.get("type", ""))
    if kind is None:
        raise ValueError(f"an event's type is one of {', '.join(_KINDS)}; found {data.get('type')!r}")
    known: dict[str, Any] = {field.name: data[field.name] for field in fields(kind) if field.name in data}
    try:
        if "block_hashes" in known:
            known["block_hashes"] = tuple(BlockHash(bytes.fromhex(each)) for each in known["block_hashes"])
        if "parent_block_hash" in known:
            known["parent_block_hash"] = BlockHash(bytes.fromhex(known["parent_block_hash"]))
        if "token_ids" in known:
            known["token_ids"] = tuple(known["token_ids"])
        return kind(**known)
    except TypeError as fault:
        raise ValueError(f"a {kind.__name__} is not whole: {fault}") from fault


def _merged(events: list[FeedEvent]) -> Iterator[FeedEvent]:
    run: list[FeedEvent] = []
    for each in events:
        if run and not _continues(run[-1], each):
            yield _joined(run)
            run = []
        run.append(each)
    if run:
        yield _joined(run)


def _continues(one: FeedEvent, two: FeedEvent) -> bool:
    """Can the second be told together with the first?"""
    match one, two:
        case BlockStored(), BlockStored():
            follows = two.parent_block_hash == one.block_hashes[-1] and two.block_size == one.block_size
            return follows and (two.medium, two.session_id) == (one.medium, one.session_id)
        case BlockRemoved(), BlockRemoved():
            return one.medium == two.medium
    return False


def _joined(run: list[FeedEvent]) -> FeedEvent:
    first = run[0]
    match first:
        case BlockStored():
            stored = [each for each in run if isinstance(each, BlockStored)]
            names = tuple(name for each in stored for name in each.block_hashes)
            tokens = tuple(token for each in stored for token in each.token_ids)
            return replace(first, block_hashes=names, token_ids=tokens)
        case BlockRemoved():
            removed = [each for each in run if isinstance(each, BlockRemoved)]
            return replace(first, block_hashes=tuple(name for each in removed for name in each.block_hashes))
    return first
