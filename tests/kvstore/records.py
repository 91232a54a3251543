"""Small blocks, seals and contexts for the tests of tiers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from sostenuto.kvstore import Block, BlockHash, Parked, Seal, pack, park, peek, root, veil
from sostenuto.kvstore.tiers import Store

PAGE = 4


def seal(tenant: str = "default", **other: Any) -> Seal:
    """The seal of a small model; `other` replaces fields."""
    fields: dict[str, Any] = {
        "model": "tiny",
        "dtype": "float32",
        "layers": 2,
        "kv_heads": 1,
        "head_dim": 2,
        "page": PAGE,
        "rope": "theta=10000",
        "tokenizer": "bytes",
        "adapter": "",
        "weights": "1",
    }
    return Seal.parse({**fields, **other, "tenant": veil(tenant)})


def start(tenant: str = "default") -> BlockHash:
    """The name before the first token of this tenant's contexts."""
    return root(model="tiny", tenant=tenant, weights="1")


def context(tokens: Sequence[int], tenant: str = "default") -> Parked:
    """A context of the small model."""
    return park(start(tenant), tuple(tokens), seal(tenant), {"turn": len(tokens)})


def payload(name: BlockHash, size: int = 32) -> bytes:
    """Bytes that depend on the name alone, so that tests know what a block must hold."""
    return random.Random(name).randbytes(size)


def records(parked: Parked, size: int = 32) -> dict[BlockHash, bytes]:
    """A record for each block of a context, with `size` bytes a token."""
    return {
        link.name: pack(
            Block(link.name, link.parent, link.tokens, parked.seal.digest, payload(link.name, size * len(link.tokens)))
        )
        for link in parked.links()
    }


def flipped(data: bytes, at: int = -1) -> bytes:
    """The same with one bit changed."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def put(store: Store, blocks: Mapping[BlockHash, bytes]) -> None:
    """Into a store, without an event loop."""
    store.log.append(blocks, {name: peek(data) for name, data in blocks.items()})
    store.log.sync()


def served(store: Store) -> dict[BlockHash, bytes]:
    """Everything in a store that can be read, verified."""
    found = store.log.read(store.log.find(head.name for head in store.log.heads()))
    return {name: bytes(data) for name, data in found.items()}
