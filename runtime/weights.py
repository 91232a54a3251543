"""Which weights the model has, and under which root contexts are named because of it."""

from __future__ import annotations

from typing import Literal

from ..kvstore import root
from ..scheduler import KvPolicy

Running = Literal["refuse", "keep", "abort"]
"""What becomes of turns that run when the weights change."""


class Weights:
    """A version, and the roots of all tenants seen so far. Equal roots may share keys and values."""

    def __init__(self, fingerprint: str) -> None:
        self.version = 0
        self._model = fingerprint
        self._named = 0  # the version that names carry: it stands still when keys and values are kept
        self._roots: dict[str, str] = {}
        self._tenants: dict[str, tuple[str, str]] = {}

    def behind(self, root: str) -> tuple[str, str]:
        """The tenant and the version of the weights that a root was made of; KeyError for one of others."""
        return self._tenants[root]

    def root(self, tenant: str) -> str:
        """The root of a tenant's context names, in hex."""
        known = self._roots.get(tenant)
        if known is None:
            weights = str(self._named) if self._named else ""
            known = self._roots[tenant] = root(model=self._model, tenant=tenant, weights=weights).hex()
            self._tenants[known] = tenant, weights
        return known

    def advance(self, version: int, kv: KvPolicy) -> tuple[tuple[str, str], ...]:
        """The model has other weights now; returns each root that was in use with its successor.

        Raises ValueError unless the version is greater than the one before.
        """
        if version <= self.version:
            raise ValueError(f"version: found {version} after {self.version}; every update needs a greater one")
        self.version = version
        if kv == "keep":
            return ()
        old, self._roots, self._named = self._roots, {}, version
        return tuple((before, self.root(tenant)) for tenant, before in old.items())
