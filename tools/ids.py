"""References inside a schema, whatever they go by, as plain JSON Pointers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urldefrag, urljoin

from .places import Node, children


def flattened(schema: Mapping[str, Any]) -> Node:
    """A copy in which every reference that stays inside is a JSON Pointer, and no `$id` is left to resolve against.

    What refers to what is not in the document stays as it is, to be refused by name; so does a document that mixes
    `$dynamicRef` with ids of its own, whose meaning depends on the way by which a schema was reached.
    """
    root: Node = copy.deepcopy(dict(schema))
    known = _Known()
    _collect(root, known)
    if known.dynamic and known.inner:
        return root
    for node, base in known.nodes:
        if isinstance(reference := node.get("$ref"), str):
            node["$ref"] = known.pointer(reference, base)
    for node, _ in known.nodes:
        node.pop("$id", None)
    return root


@dataclass(slots=True)
class _Known:
    """What a document calls its parts."""

    places: dict[str, str] = field(default_factory=dict)
    """Absolute address to JSON Pointer, of resources and of anchors."""
    nodes: list[tuple[Node, str]] = field(default_factory=list)
    dynamic: bool = False
    inner: bool = False

    def pointer(self, reference: str, base: str) -> str:
        address = base + reference if reference.startswith("#") else urljoin(base, reference)
        home, fragment = urldefrag(address)
        if not fragment.startswith("/"):
            found = self.places.get(f"{home}#{fragment}" if fragment else home)
            return reference if found is None else "#" + found
        return reference if home not in self.places else "#" + self.places[home] + fragment


def _collect(root: Node, known: _Known) -> None:
    agenda: list[tuple[str, Any, str]] = [("", root, "")]
    known.places[""] = ""
    while agenda:
        path, node, base = agenda.pop()
        if not isinstance(node, dict):
            continue
        if isinstance(name := node.get("$id"), str) and not name.startswith("#"):
            base = urldefrag(urljoin(base, name)).url
            known.inner |= bool(path)
            known.places.setdefault(base, path)
        for key in ("$anchor", "$dynamicAnchor"):
            if isinstance(name := node.get(key), str):
                known.places.setdefault(f"{base}#{name}", path)
        known.dynamic |= "$dynamicRef" in node
        known.nodes.append((node, base))
        agenda += [(path + quote(step, safe="/~!$&'()*+,;=:@"), child, base) for _, step, child in children(node)]


def followed(reference: str) -> str:
    """The JSON Pointer in a local reference, as it is written without escapes for addresses."""
    return unquote(reference[1:])
