"""The lease table and the block pool are kept in step, whatever happens and whoever asks."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sostenuto.runtime.engines.vllm.channel import Channel, NoChannel, ask, place
from sostenuto.runtime.engines.vllm.keeper import Keeper, Shape
from sostenuto.runtime.engines.vllm.leases import Terms

EVER = 1e6


@dataclass
class Page:
    """A block of the stand-in pool."""

    number: int
    ref_cnt: int = 0
    is_null: bool = False
    block_hash: bytes | None = b"name"


class Shelf:
    """A pool that counts references, and whose free blocks are those that nobody refers to."""

    def __init__(self, room: int) -> None:
        self.num_gpu_blocks = room + 1
        self.blocks = [Page(number) for number in range(room + 1)]
        self.blocks[0].is_null = True
        self.freed: list[int] = []

    def touch(self, blocks: Sequence[Page]) -> None:
        for block in blocks:
            block.ref_cnt += 1

    def free_blocks(self, ordered_blocks: Iterable[Page]) -> None:
        for block in ordered_blocks:
            block.ref_cnt -= 1
            assert block.ref_cnt >= 0
            self.freed.append(block.number)

    def get_num_free_blocks(self) -> int:
        return sum(block.ref_cnt == 0 for block in self.blocks[1:])


class Scene:
    """A keeper, a pool and a clock that stands still until it is moved."""

    def __init__(self, room: int = 20, groups: int = 1) -> None:
        self.pool = Shelf(room)
        self.now = 0.0
        self.keeper = Keeper(self.pool, Shape(32, groups), Terms(), lambda: self.now)

    def turn(self, session: str, blocks: Sequence[int], **wish: Any) -> dict[str, Any] | None:
        """A request that holds these blocks while it runs, and ends."""
        params = {"sostenuto": {"session": session, **wish}}
        self.keeper.arrive("request", params)
        self.pool.touch([self.pool.blocks[block] for block in blocks])
        answer = self.keeper.finish("request", params, [blocks], broken=False)
        self.pool.free_blocks([self.pool.blocks[block] for block in reversed(blocks)])
        return answer

    def free(self) -> int:
        return self.pool.get_num_free_blocks()


def test_what_a_finished_request_wants_held_is_not_freed_with_it() -> None:
    scene = Scene()
    answer = scene.turn("a", [3, 4, 5])
    assert answer is not None
    assert (answer["answer"], answer["tokens"], answer["seconds"]) == ("accepted", 96, 2.0)
    assert scene.free() == 17


def test_a_request_that_asks_nothing_holds_nothing() -> None:
    scene = Scene()
    scene.keeper.arrive("plain", None)
    assert scene.keeper.finish("plain", None, [[1, 2]], broken=False) is None
    assert scene.free() == 20


def test_a_malformed_wish_is_answered_and_holds_nothing() -> None:
    scene = Scene()
    answer = scene.turn("a", [1], lease_s="soon")
    assert answer is not None
    assert answer["answer"] == "refused"
    assert scene.free() == 20


def test_only_blocks_that_could_be_found_again_are_held() -> None:
    scene = Scene()
    scene.pool.blocks[5].block_hash = None
    answer = scene.turn("a", [0, 3, 4, 5])
    assert answer is not None
    assert (answer["blocks"], answer["of"]) == (2, 2)


def test_the_table_is_true_at_once_and_the_pool_when_the_scheduler_comes_by() -> None:
    scene = Scene()
    scene.turn("a", [1, 2], lease_s=5)
    scene.now = 6.0
    table = scene.keeper.answer(None)
    assert (table["leases"], table["pool"]["held"], table["pool"]["returning"]) == ([], 0, 2)
    assert scene.free() == 18
    scene.keeper.tick()
    assert scene.free() == 20


def test_a_hold_between_requests_is_answered_with_what_is_held() -> None:
    scene = Scene()
    scene.turn("a", [1, 2])
    answers = scene.keeper.answer([{"session": "a", "verb": "hold", "seconds": 60}])["answers"]
    assert [(one["answer"], one["tokens"], one["seconds"]) for one in answers] == [("accepted", 64, 60.0)]


def test_a_request_that_needs_more_than_is_free_gets_it_from_the_leases_and_no_more() -> None:
    scene = Scene(room=10)
    scene.turn("a", [1, 2, 3, 4, 5], lease_s=60)
    scene.keeper.admit(7)
    assert (scene.free(), scene.keeper.leases.held) == (7, 3)


def test_a_lease_from_which_a_request_would_gain_nothing_is_left_alone() -> None:
    scene = Scene(room=10)
    scene.turn("own", [1, 2, 3], lease_s=5)
    scene.turn("other", [4, 5], lease_s=60)
    scene.keeper.admit(6, hits={1, 2, 3})
    assert scene.free() == 6
    assert {lease.key: lease.blocks for lease in scene.keeper.leases} == {"own": [1, 2, 3], "other": [4]}


def test_no_lease_is_broken_in_vain_for_one_who_can_wait() -> None:
    scene = Scene(room=10)
    scene.pool.touch(scene.pool.blocks[6:])
    scene.turn("a", [1, 2], lease_s=60)
    scene.keeper.admit(8, patient=True)
    assert scene.keeper.leases.held == 2
    scene.keeper.admit(8)
    assert scene.keeper.leases.held == 0


def test_a_running_request_that_is_short_gets_room_until_there_is_none_to_give() -> None:
    scene = Scene(room=10)
    scene.turn("a", [1, 2, 3], lease_s=60)
    assert [scene.keeper.relieve() for _ in range(4)] == [True, True, True, False]
    assert scene.free() == 10


def test_a_lease_that_a_running_request_shares_makes_no_room() -> None:
    scene = Scene(room=10)
    scene.turn("a", [1, 2], lease_s=60)
    scene.pool.touch(scene.pool.blocks[1:3])
    assert not scene.keeper.relieve()


def test_layers_with_tables_of_their_own_are_held_whole_or_not_at_all() -> None:
    scene = Scene(room=10, groups=2)
    params = {"sostenuto": {"session": "a"}}
    scene.keeper.arrive("request", params)
    answer = scene.keeper.finish("request", params, [[1, 2, 3], [0, 4, 5, 6]], broken=False)
    assert answer is not None
    assert (answer["answer"], scene.keeper.leases.held) == ("refused", 0)


def test_clearing_frees_everything() -> None:
    scene = Scene()
    scene.turn("a", [1, 2], lease_s=60)
    scene.keeper.clear()
    assert (scene.free(), len(scene.keeper.leases)) == (20, 0)


STEPS: st.SearchStrategy[tuple[str, str, list[int]]] = st.one_of(
    st.tuples(st.just("turn"), st.sampled_from("abc"), st.lists(st.integers(1, 12), unique=True, max_size=8)),
    st.tuples(st.sampled_from(["hold", "release", "close", "demote"]), st.sampled_from("abc"), st.just([])),
    st.tuples(st.sampled_from(["wait", "admit", "relieve"]), st.just(""), st.just([])),
)


@given(st.lists(STEPS, max_size=40))
def test_whatever_happens_the_budget_holds_and_every_reference_is_given_back_once(
    steps: list[tuple[str, str, list[int]]],
) -> None:
    scene = Scene(room=12)
    leases = scene.keeper.leases
    for what, session, blocks in steps:
        if what == "turn":
            scene.turn(session, blocks, lease_s=3)
        elif what == "wait":
            scene.now += 1.0
        elif what == "admit":
            scene.keeper.admit(9)
        elif what == "relieve":
            scene.keeper.relieve()
        else:
            scene.keeper.answer([{"session": session, "verb": what, "seconds": 5}])
        assert leases.held <= leases.budget == 6
        referred = {block.number for block in scene.pool.blocks if block.ref_cnt}
        kept = {block for lease in leases for block in lease.blocks}
        assert kept <= referred
        assert all(block.ref_cnt <= 1 for block in scene.pool.blocks)
        assert len(referred) == leases.held + leases.returning
    scene.now = EVER
    scene.keeper.tick()
    assert (scene.free(), len(leases), leases.held) == (12, 0, 0)


# -- the way between the processes


def left(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_another_process_reads_the_table_and_changes_it(tmp_path: Path) -> None:
    scene = Scene()
    scene.turn("a", [1, 2])
    path = tmp_path / "sostenuto-engine" / "leases.sock"
    channel = Channel(path, scene.keeper.answer)
    try:
        assert path.parent.stat().st_mode & 0o077 == 0
        table = await ask(path, None)
        answered = await ask(path, [{"session": "a", "verb": "hold", "seconds": 60}, 5])
    finally:
        channel.close()
    assert [(row["session"], row["blocks"]) for row in table["leases"]] == [("a", 2)]
    assert [answer["answer"] for answer in answered["answers"]] == ["accepted", "refused"]
    assert left(tmp_path) == []


async def test_a_line_that_is_no_json_gets_the_table_and_breaks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "engine" / "leases.sock"
    channel = Channel(path, Scene().keeper.answer)
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"{nonsense\n")
        assert (await reader.readline()).startswith(b'{"leases": []')
        writer.close()
        assert (await ask(path, None))["leases"] == []
    finally:
        channel.close()


async def test_where_nobody_answers_the_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoChannel, match=r"nobody answers at .*leases\.sock"):
        await ask(tmp_path / "leases.sock", None)


def test_a_folder_that_others_can_enter_is_not_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(NoChannel, match="is open to other users"):
        Channel(tmp_path / "leases.sock", Scene().keeper.answer)


def test_the_sockets_of_engines_that_were_killed_are_swept_away_and_those_of_others_stay(tmp_path: Path) -> None:
    def opened(engine: str) -> Channel:
        return Channel(tmp_path / f"sostenuto-{engine}" / "leases.sock", Scene().keeper.answer)

    alive, dead = opened("alive"), tmp_path / "sostenuto-dead" / "leases.sock"
    dead.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(dead))
    another = opened("another")
    try:
        assert {path.name for path in left(tmp_path)} == {"sostenuto-alive", "sostenuto-another"}
    finally:
        alive.close()
        another.close()


def test_two_engines_never_share_a_socket() -> None:
    assert place("one") != place("two")


def test_what_runs_inside_the_server_needs_none_of_our_dependencies() -> None:
    """Its environment has vLLM's pins; jsonschema is one of them, and comes with attrs and the like."""
    code = """
import sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"anyio", "httpx", "langchain", "langchain_core", "langgraph", "llguidance",
                                  "opentelemetry", "tokenizers", "torch", "transformers"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Wall())
import sostenuto.runtime.engines.vllm.channel, sostenuto.runtime.engines.vllm.keeper
"""
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
