"""A ticket is read by threads and by coroutines of any loop, and nobody who waits holds a thread of others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sostenuto.runtime.errors import EngineFailed
from sostenuto.runtime.ticket import Chunk, Ended, Facts, Piece, Ticket

from .conftest import Gated, Pair, Stage, draw

Stages = Callable[..., Stage]
FACTS = Facts("t", "p", "none", 1, 0, 1, 0, 2, 0.0, "")
CHUNKS: list[Chunk] = [Piece(1, "a", -0.5), Piece(2, "b", -0.25), Ended("stop", FACTS)]


class Cancels:
    """Counts how often it was asked to cancel."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def put_all(ticket: Ticket, chunks: list[Chunk]) -> None:
    for chunk in chunks:
        ticket.put(chunk)


async def collect(ticket: Ticket) -> list[Chunk]:
    return [chunk async for chunk in ticket]


def test_chunks_come_in_order_and_an_ended_ticket_is_not_cancelled() -> None:
    cancels = Cancels()
    ticket = Ticket(cancels)
    for chunk in CHUNKS:
        ticket.put(chunk)
    assert list(ticket) == CHUNKS
    ticket.cancel()
    assert cancels.count == 0


async def test_a_coroutine_gets_the_same_whether_chunks_are_there_or_still_to_come() -> None:
    cancels = Cancels()
    ticket = Ticket(cancels)
    ticket.put(CHUNKS[0])
    reader = asyncio.create_task(collect(ticket))
    await asyncio.sleep(0)
    await asyncio.to_thread(put_all, ticket, CHUNKS[1:])
    assert await reader == CHUNKS
    assert cancels.count == 0


def test_an_error_comes_after_what_was_said_before_it() -> None:
    ticket = Ticket(Cancels())
    ticket.put(CHUNKS[0])
    ticket.put(EngineFailed("gone"))
    got: list[Chunk] = []

    def reading() -> None:
        got.extend(iter(ticket))

    with pytest.raises(EngineFailed, match="gone"):
        reading()
    chunks = iter(ticket)
    assert list(chunks) == [], "an ended ticket has no more to give"


async def test_a_cancelled_coroutine_cancels_its_turn() -> None:
    cancels = Cancels()
    reader = asyncio.create_task(collect(Ticket(cancels)))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert cancels.count == 1


async def test_a_coroutine_that_leaves_early_cancels_its_turn() -> None:
    cancels = Cancels()
    ticket = Ticket(cancels)
    ticket.put(CHUNKS[0])
    chunks = ticket.__aiter__()
    assert await anext(chunks) == CHUNKS[0]
    await chunks.aclose()  # type: ignore[attr-defined]
    assert cancels.count == 1


def test_writing_to_a_reader_whose_loop_is_gone_is_harmless() -> None:
    ticket = Ticket(Cancels())

    async def begin() -> None:
        reader = asyncio.create_task(collect(ticket))
        await asyncio.sleep(0)
        assert not reader.done()

    asyncio.run(begin())
    for chunk in CHUNKS:
        ticket.put(chunk)


def test_writer_and_leaving_reader_do_not_trip_over_each_other() -> None:
    """A reader leaves in the very moment in which a chunk is put."""

    async def leave(ticket: Ticket) -> None:
        writer = asyncio.get_running_loop().run_in_executor(None, put_all, ticket, CHUNKS[:1] * 30)
        chunks = ticket.__aiter__()
        await anext(chunks)
        await chunks.aclose()  # type: ignore[attr-defined]
        await writer

    async def often() -> None:
        for _ in range(200):
            await leave(Ticket(Cancels()))

    asyncio.run(often())


def test_threads_and_several_event_loops_read_at_the_same_time(tiny: Pair, stages: Stages) -> None:
    stage = stages(tiny.ours)
    prompts = [draw(12, seed=seed) for seed in range(12)]
    expected = [stage.say(prompt, f"x{n}").tokens for n, prompt in enumerate(prompts)]

    def blocking(number: int) -> list[Chunk]:
        return list(stage.submit(prompts[number], f"p{number}"))

    def in_a_loop(number: int) -> list[Chunk]:
        async def both() -> list[Chunk]:
            tickets = [stage.submit(prompts[n], f"p{n}") for n in (number, number + 1)]
            one, two = await asyncio.gather(*map(collect, tickets))
            return one + two

        return asyncio.run(both())

    with ThreadPoolExecutor(8) as pool:
        waits = [pool.submit(blocking, n) for n in range(6)] + [pool.submit(in_a_loop, n) for n in (6, 8, 10)]
        got = [chunk.token for wait in waits for chunk in wait.result(60) if isinstance(chunk, Piece)]
    assert got == [token for tokens in expected for token in tokens]


async def test_a_turn_begun_on_one_loop_may_be_read_on_another(tiny: Pair, stages: Stages) -> None:
    stage = stages(tiny.ours)
    ticket = stage.submit(draw(12), max_tokens=4)
    chunks = await asyncio.to_thread(lambda: asyncio.run(collect(ticket)))
    assert len(chunks) == 5


async def test_turns_that_wait_hold_no_thread(tiny: Pair, stages: Stages) -> None:
    """Fifty coroutines wait for a pool that one turn fills; their loop's own threads stay free for tools."""
    gate = Gated(tiny.ours, pool_tokens=64)
    stage = stages(gate)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(8, thread_name_prefix="own"))
    readers = [asyncio.create_task(collect(stage.submit(draw(40, seed=n), f"p{n}", max_tokens=2))) for n in range(50)]
    await asyncio.to_thread(gate.wait)
    assert "49 waiting | 1 running" in await asyncio.to_thread(stage.loop.ask)
    assert sum(thread.name.startswith("own") for thread in threading.enumerate()) <= 2
    gate.open()
    assert {len(chunks) for chunks in await asyncio.gather(*readers)} == {3}


def test_blocked_threads_do_not_starve_the_turn_that_would_free_them(tiny: Pair, stages: Stages) -> None:
    stage = stages(tiny.ours, pool=64)
    with ThreadPoolExecutor(16) as pool:
        waits = [pool.submit(stage.say, draw(40, seed=n), f"p{n}", max_tokens=5) for n in range(16)]
        assert {len(wait.result(60).tokens) for wait in waits} == {5}
