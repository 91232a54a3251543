"""Which weights the model has, and under which root contexts are named because of it."""

from __future__ import annotations

from typing import Literal
from uuid import uuid4

from ..kvstore import RAW, Groups, root
from ..scheduler import KvPolicy

Running = Literal["refuse", "keep", "abort"]
"""What becomes of turns that run when the weights change."""


class Weights:
    """A version, and the roots of all tenants and codecs seen so far. Equal roots may share keys and values.

    Weights that were given while the model runs have a label that no other process, and no other update, will ever
    use again: two trainings that both count their updates from one do not have the same weights.
    """

    def __init__(self, fingerprint: str, groups: Groups) -> None:
        self.version = 0
        self._groups = groups
        self._model = fingerprint
        self._life = uuid4().hex
        self._label = ""  # of the present weights: what is stored is sealed with it
        self._named = ""  # the one that names carry: it stands still when keys and values are kept
        self._roots: dict[tuple[str, str], str] = {}
        self._owners: dict[str, tuple[str, str, int | None]] = {}  # by the roots of groups of layers too

    def behind(self, root: str) -> tuple[str, str, str, int | None] | None:
        """For whom a root was made: the tenant, the label of the present weights, the codec, and the number of the
        group of layers whose blocks are named under it, if they are not all. None for a root of other weights.

        What lies under a root of others must not be stored any more: part of it may be of the present weights.
        """
        if root not in self._owners:
            return None
        tenant, codec, group = self._owners[root]
        return tenant, self._label, codec, group

    def root(self, tenant: str, codec: str = RAW) -> str:
        """The root of the names of a tenant's contexts that are stored by this codec, in hex."""
        owner = (tenant, codec)
        known = self._roots.get(owner)
        if known is None:
            named = root(model=self._model, tenant=tenant, weights=self._named, codec=codec)
            known = self._roots[owner] = named.hex()
            self._owners[known] = (*owner, None)
            for number, each in enumerate(self._groups.roots(named)):
                self._owners[each.hex()] = (*owner, number)
        return known

    def next(self, given: int | None) -> int:
        """The version of new weights, one more than before unless given. Raises ValueError for no later one."""
        version = self.version + 1 if given is None else given
        if isinstance(version, bool) or not isinstance(version, int) or version <= self.version:
            raise ValueError(f"version: found {version} after {self.version}; give a greater whole number")
        return version

    def advance(self, version: int, kv: KvPolicy) -> tuple[tuple[str, str], ...]:
        """The model has other weights now; returns each root that was in use with its successor.

        Raises ValueError unless the version is greater than the one before.
        """
        if version <= self.version:
            raise ValueError(f"version: found {version} after {self.version}; every update needs a greater one")
        self.version, self._label = version, f"{self._life}.{version}"
        if kv == "keep":
            return ()
        old, self._roots, self._owners, self._named = self._roots, {}, {}, self._label
        return tuple((before, self.root(*owner)) for owner, before in old.items())
