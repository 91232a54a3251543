"""What must agree before stored bytes may be read: model, geometry, tokenizer, adapter, weights, tenant, codec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NewType

from .errors import BadRecord

Veiled = NewType("Veiled", str)
"""A tenant as 32 hexadecimal digits; what is stored and sent never has its name."""

_SIZE = 16


def veil(tenant: str) -> Veiled:
    """The digest that stands for a tenant. It hides a name from readers, not from those who can guess it."""
    return Veiled(blake2b(tenant.encode(), digest_size=_SIZE, person=b"sostenuto.tenant").hexdigest())


@dataclass(frozen=True, slots=True)
class Seal:
    """Everything besides tokens that makes the bytes of a block differ. Two that differ anywhere share nothing."""

    model: str
    """The fingerprint of the loaded model."""
    dtype: str
    layers: int
    kv_heads: int
    head_dim: int
    page: int
    """Tokens in a full block."""
    rope: str
    """How positions are rotated into keys, in any spelling that differs when the rotation does."""
    tokenizer: str
    adapter: str
    weights: str
    """The version of the weights: training changes it."""
    tenant: Veiled
    codec: str = "raw"
    exact: bool = True
    """False when a lossy codec or an eviction of tokens touched any byte."""
    group: str = ""
    """Which of the model's layers these are, where not all of them lie in one block; `layers` have room there."""

    def __post_init__(self) -> None:
        """Raises ValueError for a tenant that is not veiled, so that no name is stored by mistake."""
        if len(self.tenant) != 2 * _SIZE or set(self.tenant) - set("0123456789abcdef"):
            raise ValueError("the tenant of a seal is a digest: give veil(tenant), never the name itself")

    @property
    def digest(self) -> bytes:
        """16 bytes that stand for all fields; each is hashed with its label and length."""
        return _digest(self)

    @property
    def common(self) -> bytes:
        """16 bytes that stand for what all contexts of one loaded model have in common.

        Their tenants, weights, codecs and exactness are not in it: those are in the names of their blocks.
        """
        return replace(self, weights="", tenant=veil(""), codec="raw", exact=True).digest

    def differing(self, other: Seal) -> tuple[str, ...]:
        """The fields that differ from `other`, in words: what is found here and what is wanted there."""
        return tuple(
            f"{each.name} is {mine!r}, wanted {wanted!r}"
            for each in fields(self)
            if (mine := getattr(self, each.name)) != (wanted := getattr(other, each.name))
        )

    def plain(self) -> dict[str, Any]:
        """As JSON has it; without a group where there is one alone, as it was before there were groups."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain if self.group else {name: value for name, value in plain.items() if name != "group"}

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Seal:
        """The seal that `plain` wrote. Raises BadRecord for anything else."""
        try:
            seal = cls(**record)
        except (TypeError, ValueError) as error:
            raise BadRecord(f"no seal can be read ({error})") from error
        for name, value in seal.plain().items():
            kind = {"exact": bool}.get(name, int if name in ("layers", "kv_heads", "head_dim", "page") else str)
            if type(value) is not kind:
                raise BadRecord(f"a seal's {name} is {value!r}, expected {kind.__name__}")
        if seal.page < 1:
            raise BadRecord(f"a seal's page is {seal.page}, expected at least one token")
        return seal


@lru_cache(maxsize=256)  # every block that comes back is compared with it, and seals are few
def _digest(seal: Seal) -> bytes:
    hasher = blake2b(digest_size=_SIZE, person=b"sostenuto.seal")
    for label, value in seal.plain().items():
        raw = str(value).encode()
        hasher.update(f"{label}:{len(raw)}:".encode())
        hasher.update(raw)
    return hasher.digest()
