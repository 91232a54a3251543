"""Random operations on a disk tier and its shelves, with crashes and reopenings, against plain dictionaries."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sostenuto.kvstore import BlockHash, Incomplete, Parked, peek
from sostenuto.kvstore.tiers import Store

from .records import PAGE, context, records

TENANTS = ("acme", "globex")
# Few contexts that share beginnings, so that operations meet.
CONTEXTS = [
    context([first] * PAGE + list(range(length)), tenant)
    for tenant in TENANTS
    for first in (1, 2)
    for length in (0, 3, PAGE, 2 * PAGE + 1)
]
BLOCKS = {name: data for parked in CONTEXTS for name, data in records(parked).items()}
KEYS = ("a", "b", "c")

which = st.integers(0, len(CONTEXTS) - 1)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), which),
        st.tuples(st.just("drop"), which),
        st.tuples(st.just("keep"), which, st.sampled_from(KEYS)),
        st.tuples(st.just("forget"), st.sampled_from(TENANTS), st.sampled_from(KEYS)),
        st.tuples(st.just("collect"), st.sampled_from((0.0, 0.4))),
        st.tuples(st.just("reopen")),
        st.tuples(st.just("tear"), st.binary(min_size=1, max_size=200)),
    ),
    max_size=25,
)


@dataclass
class Model:
    """What must be there."""

    blocks: set[BlockHash] = field(default_factory=set)
    marks: dict[tuple[str, str], Parked] = field(default_factory=dict)
    unwanted: set[BlockHash] = field(default_factory=set)

    def needed(self) -> set[BlockHash]:
        return {name for parked in self.marks.values() for name in parked.names}

    def let_go(self) -> None:
        """What was dropped while a snapshot needed it goes with the snapshot."""
        gone = self.unwanted - self.needed()
        self.blocks -= gone
        self.unwanted -= gone


@settings(max_examples=60, deadline=None)
@given(operations)
def test_a_store_is_what_its_operations_say(steps: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, model = Path(folder), Model()
        store = Store(path, segment=600)
        for step in steps:
            store = run(store, path, model, step)
            compare(store, model)
        store.close()
        store = Store(path, segment=600)
        compare(store, model)
        for _ in store.gc():
            pass
        compare(store, model)
        _, size, live = store.log.size
        assert size == live, "after collecting, nothing is left but what is served"
        store.close()


def run(store: Store, path: Path, model: Model, step: tuple[object, ...]) -> Store:
    match step:
        case ("put", int(number)):
            blocks = records(CONTEXTS[number])
            store.log.append(blocks, {name: peek(data) for name, data in blocks.items()})
            store.want(blocks)
            store.log.sync()
            model.blocks |= blocks.keys()
            model.unwanted -= blocks.keys()
        case ("drop", int(number)):
            names = set(CONTEXTS[number].names)
            store.drop(names)
            model.blocks -= names - model.needed()
            model.unwanted |= names & model.needed()
        case ("keep", int(number), str(key)):
            keep(store, model, CONTEXTS[number], key)
        case ("forget", str(tenant), str(key)):
            store.forget(context((), tenant).seal.tenant, key)
            model.marks.pop((context((), tenant).seal.tenant, key), None)
            model.let_go()
        case ("collect", float(least)):
            for _ in store.gc(least):
                pass
        case ("reopen",):
            store.close()
            store = Store(path, segment=600)
            model.unwanted.clear()
        case ("tear", bytes(torn)):  # a write that a crash cut off
            store.close()
            with (sorted((path / "segments").iterdir()) or [path / "segments" / "00000001.seg"])[-1].open("ab") as file:
                file.write(next(iter(BLOCKS.values()))[: len(torn)])
            store = Store(path, segment=600)
            model.unwanted.clear()
    return store


def keep(store: Store, model: Model, parked: Parked, key: str) -> None:
    try:
        store.keep(key, parked)
    except Incomplete:
        assert not set(parked.names) <= model.blocks
    else:
        assert set(parked.names) <= model.blocks
        model.marks[(parked.seal.tenant, key)] = parked
        model.let_go()


def compare(store: Store, model: Model) -> None:
    found = store.log.read(store.log.find(BLOCKS))
    assert {name: bytes(data) for name, data in found.items()} == {name: BLOCKS[name] for name in model.blocks}
    assert {head.name for head in store.log.heads()} == model.blocks
    for tenant in TENANTS:
        veiled = context((), tenant).seal.tenant
        mine = {key: parked for (owner, key), parked in model.marks.items() if owner == veiled}
        assert store.marks.keys(veiled) == sorted(mine)
        for key in KEYS:
            mark = store.find(veiled, key)
            assert (None if mark is None else mark.parked) == mine.get(key)
    assert store.log.bad == 0
