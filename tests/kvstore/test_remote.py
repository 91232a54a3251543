"""The suite for tiers over a real server on loopback, and what happens when that server goes."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sostenuto.kvstore import BlockHash, Mismatch, Seal, TierFull, TierGone
from sostenuto.kvstore.tiers import Shared, Tier

from .records import PAGE, context, flipped, records, seal
from .redis_server import free_port, server
from .tier_conformance import CONTEXT, NAMES, RECORDS, TierConformance

redis = pytest.importorskip("redis.asyncio", reason="the extra `redis` is not installed: pip install redis")

from sostenuto.kvstore.tiers.remote import RemoteTier  # noqa: E402


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(tmp_path_factory.mktemp("server")) as (url, _):
        yield url


class Remote:
    keeps = True

    def __init__(self, url: str) -> None:
        self.url = url
        self.every = False

    async def open(self, seal: Seal = CONTEXT.seal) -> Tier:
        return RemoteTier(self.url, seal=seal, every=self.every)

    async def damage(self, tier: Tier, name: BlockHash) -> None:
        client = redis.Redis.from_url(self.url)
        digest = CONTEXT.seal.common if self.every else CONTEXT.seal.digest
        key = b"sostenuto:" + digest.hex().encode() + b":" + name.hex().encode()
        await client.set(key, flipped(await client.get(key)))
        await client.aclose()


@pytest.fixture
async def site(address: str) -> AsyncIterator[Remote]:
    client = redis.Redis.from_url(address)
    await client.flushall()
    yield Remote(address)
    await client.aclose()


class TestRemote(TierConformance):
    pass


class TestRemoteOfAHost(TierConformance):
    """One for every tenant of a model."""

    @pytest.fixture
    def site(self, site: Remote) -> Remote:
        site.every = True
        return site


async def test_a_host_serves_each_tenant_its_own_and_no_other_model(site: Remote) -> None:
    site.every = True
    tier, theirs = await site.open(), records(context(range(3), "another tenant"))
    await tier.put({**RECORDS, **theirs})
    same = await site.open(seal("a third tenant", weights="2", codec="int8", exact=False))
    assert {name: bytes(data) for name, data in (await same.get([*NAMES, *theirs])).items()} == {**RECORDS, **theirs}
    other = await site.open(seal(page=PAGE + 1))
    assert await other.get([*NAMES, *theirs]) == {}
    for each in (tier, same, other):
        await each.aclose()


async def test_it_is_asked_what_is_there_without_reading_any_of_it(site: Remote) -> None:
    tier = RemoteTier(site.url, seal=CONTEXT.seal)
    assert isinstance(tier, Shared)
    await tier.put({name: RECORDS[name] for name in NAMES[1:]})
    assert await tier.have(NAMES) == set(NAMES[1:])
    assert await tier.have(()) == set()
    assert (tier.counts.served, tier.counts.absent) == (0, 0)
    await tier.aclose()
    with pytest.raises(TierGone):
        await tier.have(())


@pytest.mark.parametrize("wrong", ["127.0.0.1:6379", "http://127.0.0.1", "redis://user:hidden@there:port"])
def test_what_is_no_address_is_refused_without_its_password(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"give one such as redis://127\.0\.0\.1:6379/0") as refused:
        RemoteTier(wrong, seal=CONTEXT.seal)
    assert "hidden" not in str(refused.value)


async def test_blocks_of_two_tenants_are_apart_even_when_their_names_are_not(site: Remote) -> None:
    """The seal is in the key: a tenant who knows another's names gets nothing by them."""
    mine, theirs = await site.open(), await site.open(seal("another tenant"))
    await mine.put(RECORDS)
    assert await theirs.get(NAMES) == {}
    assert await theirs.entries() == []
    await theirs.drop(NAMES)
    assert len(await mine.get(NAMES)) == 4
    await mine.aclose()
    await theirs.aclose()


async def test_a_record_of_another_seal_is_refused(site: Remote) -> None:
    tier = await site.open()
    with pytest.raises(Mismatch, match="its seal is"):
        await tier.put({**RECORDS, **records(context(range(3), "another tenant"))})
    assert await tier.entries() == []
    await tier.aclose()


async def test_what_others_wrote_under_our_keys_is_neither_listed_nor_served(site: Remote) -> None:
    tier = await site.open()
    await tier.put(RECORDS)
    prefix = b"sostenuto:" + CONTEXT.seal.digest.hex().encode() + b":"
    client = redis.Redis.from_url(site.url)
    await client.set(prefix + b"junk", b"junk")
    await client.set(prefix + NAMES[0].hex().encode(), RECORDS[NAMES[1]])  # whole, but of another name
    await client.aclose()
    assert {each.name for each in await tier.entries()} == set(NAMES[1:])
    assert set(await tier.get(NAMES)) == set(NAMES[1:])
    assert tier.counts.bad == 1
    await tier.aclose()


async def test_a_server_may_forget_after_a_while(site: Remote) -> None:
    tier = RemoteTier(site.url, seal=CONTEXT.seal, expire=1000)
    await tier.put(RECORDS)
    client = redis.Redis.from_url(site.url)
    ages = [await client.ttl(key) for key in await client.keys("*")]
    await client.aclose()
    assert len(ages) == 4
    assert all(0 < age <= 1000 for age in ages)
    await tier.aclose()


async def test_a_server_without_room_is_full_and_serves_what_it_has(site: Remote) -> None:
    tier = await site.open()
    await tier.put({NAMES[0]: RECORDS[NAMES[0]]})
    client = redis.Redis.from_url(site.url)
    await client.config_set("maxmemory", 1)
    try:
        with pytest.raises(TierFull, match="has no room"):
            await tier.put(RECORDS)
        assert set(await tier.get(NAMES)) == {NAMES[0]}
    finally:
        await client.config_set("maxmemory", 0)
        await client.aclose()
        await tier.aclose()


async def every_call_is_gone(tier: Tier) -> None:
    with pytest.raises(TierGone, match=r"127\.0\.0\.1"):
        await tier.get(NAMES)
    with pytest.raises(TierGone, match=r"127\.0\.0\.1"):
        await tier.put(RECORDS)
    with pytest.raises(TierGone, match=r"127\.0\.0\.1"):
        await tier.drop(NAMES)
    with pytest.raises(TierGone, match=r"127\.0\.0\.1"):
        await tier.entries()


async def test_a_server_that_is_not_there_is_one_clear_fault_that_tells_no_password() -> None:
    tier = RemoteTier(f"redis://user:hidden@127.0.0.1:{free_port()}/0", seal=CONTEXT.seal)
    await every_call_is_gone(tier)
    with pytest.raises(TierGone) as gone:
        await tier.get(NAMES)
    assert "hidden" not in str(gone.value) + repr(tier)
    await tier.aclose()


async def test_a_server_that_dies_between_two_calls_is_the_same_fault(tmp_path: Path) -> None:
    with server(tmp_path) as (url, process):
        tier = RemoteTier(url, seal=CONTEXT.seal)
        await tier.put(RECORDS)
        process.kill()
        process.wait()
        await every_call_is_gone(tier)
        await tier.aclose()


async def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    with server(tmp_path) as (url, process):
        tier = RemoteTier(url, seal=CONTEXT.seal, timeout=0.2)
        await tier.put(RECORDS)
        stop(process)
        await every_call_is_gone(tier)
        await tier.aclose()


def stop(process: subprocess.Popen[str]) -> None:
    """Let a process sleep until it is killed."""
    process.send_signal(signal.SIGSTOP)
