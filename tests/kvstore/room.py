"""Contexts in a ledger, for tests: computed, closed and looked for in single moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sostenuto.kvstore import BlockHash, Branch, Ledger, PageId, Snapshot, root

PAGE = 4
ROOT = root(model="m")


def write(ledger: Ledger, tokens: Sequence[int], *, at: BlockHash = ROOT, session: str | None = None) -> Branch:
    """A branch that has computed what was not known of `tokens`."""
    branch = Branch.resume(ledger, at, tokens, session=session)
    rest = list(tokens[len(branch) :])
    branch.reserve(len(rest))
    branch.append(rest)
    return branch


def leave(ledger: Ledger, tokens: Sequence[int], *, at: BlockHash = ROOT, stale: bool = False) -> tuple[PageId, ...]:
    """Compute a context and let go of it; returns where it lies."""
    branch = write(ledger, tokens, at=at)
    pages = tuple(branch.pages)
    branch.close(stale=stale)
    return pages


def known(ledger: Ledger, tokens: Sequence[int], *, at: BlockHash = ROOT) -> int:
    """Tokens of a prefix that can be found."""
    return ledger.match(at, tokens).tokens(ledger.page)


def frozen(ledger: Ledger, tokens: Sequence[int], *, at: BlockHash = ROOT) -> Snapshot:
    """A context that is kept by its snapshot alone: close it at the end."""
    branch = write(ledger, tokens, at=at)
    snapshot = branch.freeze()
    branch.close()
    return snapshot


def victims(ledger: Ledger, contexts: Mapping[str, Sequence[int]]) -> list[str]:
    """Which context loses tokens at each eviction, until nothing is left to evict."""
    order = []
    while ledger.available:
        before = {name: known(ledger, tokens) for name, tokens in contexts.items()}
        ledger.alloc(1)
        order += [name for name, tokens in contexts.items() if known(ledger, tokens) < before[name]]
    return order
