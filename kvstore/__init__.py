"""Where context lives: blocks and their names, branches, snapshots, leases, and the tensors behind them.

Every context is a chain of named blocks and a short tail. A cache hit, a hold, a snapshot, a fork and a rollback are
all statements about prefixes of such chains. Because names are content, nothing here is needed for correctness: what
was lost is computed again.
"""

from __future__ import annotations

from .branch import Branch, Copy, Growth
from .elsewhere import Elsewhere, Found
from .errors import (
    BadRecord,
    BadStore,
    BrokenBooks,
    Incomplete,
    KVError,
    Mismatch,
    NotAnAncestor,
    NotHeld,
    OutOfPages,
    TierFull,
    TierGone,
    TierLocked,
)
from .exactness import CODEC_NAMES, RAW, CodecName, codec_name, is_exact
from .feed import DEVICE, AllBlocksCleared, BlockRemoved, BlockStored, Feed, FeedEvent, Listener, Mirror
from .grouped import Grouped, GroupMatch, GroupSnapshot, find, look, resume
from .groups import NOWHERE, Group, Groups
from .hashes import BlockHash, chain, name, root, thinned_root
from .index import Match
from .ledger import Ledger
from .order import Cached, Rank, oldest_first
from .parcel import Parcel, pack_context, unpack_context, write_context
from .parked import Parked, park
from .past import Past, Snapshot, holdings
from .pins import Grant, Pins, Wish
from .ranges import DEFAULT_PRIORITY, Range
from .record import Block, Head, Link, check, links, pack, peek, unpack
from .seal import Seal, Veiled, veil
from .shape import Shape
from .snapshot import Lease, PageId, Prefix, Terms

__all__ = [
    "CODEC_NAMES",
    "DEFAULT_PRIORITY",
    "DEVICE",
    "NOWHERE",
    "RAW",
    "AllBlocksCleared",
    "BadRecord",
    "BadStore",
    "Block",
    "BlockHash",
    "BlockRemoved",
    "BlockStored",
    "Branch",
    "BrokenBooks",
    "Cached",
    "CodecName",
    "Copy",
    "Elsewhere",
    "Feed",
    "FeedEvent",
    "Found",
    "Grant",
    "Group",
    "GroupMatch",
    "GroupSnapshot",
    "Grouped",
    "Groups",
    "Growth",
    "Head",
    "Incomplete",
    "KVError",
    "Lease",
    "Ledger",
    "Link",
    "Listener",
    "Match",
    "Mirror",
    "Mismatch",
    "NotAnAncestor",
    "NotHeld",
    "OutOfPages",
    "PageId",
    "Parcel",
    "Parked",
    "Past",
    "Pins",
    "Prefix",
    "Range",
    "Rank",
    "Seal",
    "Shape",
    "Snapshot",
    "Terms",
    "TierFull",
    "TierGone",
    "TierLocked",
    "Veiled",
    "Wish",
    "chain",
    "check",
    "codec_name",
    "find",
    "holdings",
    "is_exact",
    "links",
    "look",
    "name",
    "oldest_first",
    "pack",
    "pack_context",
    "park",
    "peek",
    "resume",
    "root",
    "thinned_root",
    "unpack",
    "unpack_context",
    "veil",
    "write_context",
]
