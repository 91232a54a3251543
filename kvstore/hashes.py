"""Names for blocks: a block's name is the hash of its tokens and of the block before it.

A name says everything that makes bytes differ: the tokens, what came before them, and, through the root of the
chain, the tenant, the model with its weights and adapter, and whether anything lossy happened to the bytes.
Equal tokens after different prefixes therefore never share a name.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import NewType

from .exactness import RAW, is_exact

BlockHash = NewType("BlockHash", bytes)
"""16 bytes of blake2b. Never trusted alone: whoever serves a block compares its tokens too."""

_SIZE = 16


def root(
    *,
    model: str,
    tenant: str = "default",
    adapter: str = "",
    weights: str = "",
    exact: bool = True,
    codec: str = RAW,
) -> BlockHash:
    """The name before the first token of a context; contexts with different roots share nothing.

    `model` is the fingerprint of the loaded model, `weights` the version of its weights (training changes it), and
    `exact` is False when token eviction may have touched any byte under this root, and whenever its `codec` is lossy.
    Every field is hashed with its own label and length, so that a tenant's name can never pass for an adapter's.
    """
    hasher = blake2b(digest_size=_SIZE, person=b"sostenuto.root")
    exact = exact and is_exact(codec)
    fields = {"tenant": tenant, "model": model, "adapter": adapter, "weights": weights, "exact": str(exact)}
    if codec != RAW:
        fields["codec"] = codec
    for label, value in fields.items():
        raw = value.encode()
        hasher.update(f"{label}:{len(raw)}:".encode())
        hasher.update(raw)
    return BlockHash(hasher.digest())


def thinned_root(context: BlockHash, *, policy: str, budget: int, kept: bytes) -> BlockHash:
    """The name before the first slot of a thinned context; nothing exact is ever found under it, nor it under theirs.

    `context` is the name of all tokens that were there before (`name`, from an exact root), for what was dropped has
    left its mark on what was kept; `kept` says which positions each head kept.
    """
    hasher = blake2b(digest_size=_SIZE, person=b"sostenuto.thin")
    for part in (context, policy.encode(), str(budget).encode(), kept):
        hasher.update(f"{len(part)}:".encode())
        hasher.update(part)
    return BlockHash(hasher.digest())


def of_group(root: BlockHash, layers: Sequence[int]) -> BlockHash:
    """The root under which some of the layers of a context have blocks of their own."""
    hasher = blake2b(root, digest_size=_SIZE, person=b"sostenuto.group")
    hasher.update(array("q", layers).tobytes())
    return BlockHash(hasher.digest())


def name(parent: BlockHash, tokens: Sequence[int]) -> BlockHash:
    """The name of the block that holds `tokens` and follows `parent`."""
    hasher = blake2b(parent, digest_size=_SIZE)
    hasher.update(array("q", tokens).tobytes())
    return BlockHash(hasher.digest())


def chain(tokens: Sequence[int], page: int, parent: BlockHash) -> tuple[BlockHash, ...]:
    """The names of all full blocks of `page` tokens; an unfinished last block has none."""
    names = []
    for start in range(0, len(tokens) - page + 1, page):
        parent = name(parent, tokens[start : start + page])
        names.append(parent)
    return tuple(names)
