"""Where context lives: blocks and their names, branches, snapshots, leases, and the tensors behind them.

Every context is a chain of named blocks and a short tail. A cache hit, a hold, a snapshot, a fork and a rollback are
all statements about prefixes of such chains. Because names are content, nothing here is needed for correctness: what
was lost is computed again.
"""

from __future__ import annotations

from .branch import Branch, Copy, Growth
from .errors import BrokenBooks, KVError, NotAnAncestor, NotHeld, OutOfPages
from .hashes import BlockHash, chain, name, root
from .ledger import Cached, Ledger, Match, Rank, oldest_first
from .shape import Shape
from .snapshot import Lease, PageId, Snapshot

__all__ = [
    "BlockHash",
    "Branch",
    "BrokenBooks",
    "Cached",
    "Copy",
    "Growth",
    "KVError",
    "Lease",
    "Ledger",
    "Match",
    "NotAnAncestor",
    "NotHeld",
    "OutOfPages",
    "PageId",
    "Rank",
    "Shape",
    "Snapshot",
    "chain",
    "name",
    "oldest_first",
    "root",
]
