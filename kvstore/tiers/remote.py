"""Blocks in Redis or Valkey: shared by many hosts, gone when that server loses them. The only file that knows redis.

A key is `sostenuto:`, a digest, a colon and the block's name; its value is the record. The digest is the seal's, so
that what one model or tenant wrote is not even asked for by another; for a host, which has many tenants, it stands for
what their seals have in common. It needs the extra `redis`, and an event loop of asyncio.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError, RedisError

from ..errors import BadRecord, Mismatch, TierFull, TierGone
from ..hashes import BlockHash
from ..record import Buffer, peek, unpack
from ..seal import Seal
from .base import Counts, Entry, chunks, entry, heads

_CHUNK = 8 << 20  # bytes in one pipeline, and a bound for what a cancelled call throws away
_ASKED = 32  # names in one MGET, whose sizes are not known before
_HEAD = 4096  # bytes of a value that are read for its head: nearly always all of it


def place(url: str) -> str:
    """Where the server at an address is, without its password. Raises ValueError for an address that is none."""
    try:
        known = parse_url(url)
    except ValueError as error:
        raise ValueError(f"no server has this address ({error}): give one such as redis://127.0.0.1:6379/0") from error
    return str(known.get("path") or f"{known.get('host', 'localhost')}:{known.get('port', 6379)}")


class RemoteTier:
    """A Tier behind the address of a server. `put` promises what the server does: usually memory, no fsync.

    The server may expire and evict as it is told to: what it lost is absent. One that cannot be reached, refuses or
    does not answer in time raises TierGone, from every method, and is asked again by the next call.
    """

    name = "remote"

    def __init__(
        self, url: str, *, seal: Seal, every: bool = False, timeout: float = 5.0, expire: int | None = None
    ) -> None:
        """Connects when it is first used. `expire`: seconds after which the server forgets a block; None: never.

        `every`: blocks of all tenants, weights and codecs of the seal's model, whose names tell them apart; else those
        of this very seal. Raises ValueError as `place` does.
        """
        self._where = place(url)
        self.counts = Counts()
        self._seal = None if every else seal.digest
        self._prefix = b"sostenuto:" + (seal.common if every else seal.digest).hex().encode() + b":"
        self._expire = expire
        self._closed = False
        # Every call is tried once: whoever waits for a block would rather compute it than wait again.
        self._client: Redis = Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
        )

    async def put(self, records: Mapping[BlockHash, Buffer]) -> None:
        """As Tier says. Raises Mismatch for a record of another seal; nothing is stored then."""
        found = heads(records)
        for head in found.values():
            if self._seal not in (None, head.seal):
                wanted = f"its seal is {head.seal.hex()}, this tier's {self._prefix[10:-1].decode()}"
                raise Mismatch(f"block {head.name.hex()}", (wanted,))
        for run in chunks(((name, head.size) for name, head in found.items()), _CHUNK):
            await self._asked(self._put, {name: records[name] for name in run})
            self.counts.put += len(run)

    async def get(self, names: Iterable[BlockHash]) -> Mapping[BlockHash, memoryview]:
        """As Tier says."""
        wanted = list(dict.fromkeys(names))
        found: dict[BlockHash, memoryview] = {}
        for start in range(0, len(wanted), _ASKED):
            run = wanted[start : start + _ASKED]
            values = await self._asked(self._client.mget, [self._key(name) for name in run])
            if not isinstance(values, list) or len(values) != len(run):
                raise TierGone(f"the server at {self._where} answered something else than it was asked")
            bad = []
            for name, value in zip(run, values, strict=True):
                if value is None:
                    self.counts.absent += 1
                elif self._good(name, value):
                    found[name] = memoryview(value)
                else:
                    bad.append(name)
            self.counts.bad += len(bad)
            await self.drop(bad)
        self.counts.served += len(found)
        return found

    async def have(self, names: Iterable[BlockHash]) -> frozenset[BlockHash]:
        """As Shared says."""
        wanted = list(dict.fromkeys(names))
        if not wanted:
            await self._asked(self._client.ping)
        found: set[BlockHash] = set()
        for start in range(0, len(wanted), 1024):
            run = wanted[start : start + 1024]
            there = await self._asked(self._there, run)
            found |= {name for name, is_there in zip(run, there, strict=True) if is_there}
        return frozenset(found)

    async def drop(self, names: Iterable[BlockHash]) -> None:
        """As Tier says."""
        keys = [self._key(name) for name in names]
        for start in range(0, len(keys), 1024):
            await self._asked(self._client.unlink, *keys[start : start + 1024])

    async def entries(self) -> Sequence[Entry]:
        """As Tier says: the blocks under this tier's seal, whoever wrote them. It asks the server for every key."""
        found: list[Entry] = []
        cursor = 0
        while True:
            cursor, keys = await self._asked(self._scan, cursor)
            starts = await self._asked(self._starts, keys) if keys else []
            for key, start in zip(keys, starts, strict=True):
                with suppress(BadRecord):
                    head = peek(start)
                    if self._key(head.name) == key:
                        found.append(entry(head))
            if cursor == 0:
                return list({each.name: each for each in found}.values())  # a scan may show a key twice

    async def aclose(self) -> None:
        """Close the connections; what was stored stays on the server."""
        self._closed = True
        with suppress(RedisError, OSError):
            await self._client.aclose()

    def __repr__(self) -> str:
        return f"<RemoteTier {self.name} at {self._where}>"

    async def _put(self, records: Mapping[BlockHash, Buffer]) -> None:
        async with self._client.pipeline(transaction=False) as pipe:
            for name, data in records.items():
                pipe.set(self._key(name), data if isinstance(data, bytes) else memoryview(data), ex=self._expire)
            await pipe.execute()

    async def _there(self, names: list[BlockHash]) -> list[int]:
        async with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.exists(self._key(name))
            there: list[int] = await pipe.execute()
            return there

    async def _scan(self, cursor: int) -> tuple[int, list[bytes]]:
        following, keys = await self._client.scan(cursor, match=self._prefix + b"*", count=512)
        return following, [key for key in keys if isinstance(key, bytes)]

    async def _starts(self, keys: list[bytes]) -> list[bytes]:
        async with self._client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.getrange(key, 0, _HEAD - 1)
            starts: list[bytes] = await pipe.execute()
            return starts

    def _key(self, name: BlockHash) -> bytes:
        return self._prefix + name.hex().encode()

    def _good(self, name: BlockHash, value: bytes) -> bool:
        try:
            block = unpack(value)
        except BadRecord:
            return False
        return block.name == name and self._seal in (None, block.seal)

    async def _asked(self, ask: Callable[..., Awaitable[Any]], *what: Any) -> Any:
        if self._closed:
            raise TierGone(f"the tier {self.name} is closed")
        try:
            return await ask(*what)
        except OutOfMemoryError as error:
            raise TierFull(f"the server at {self._where} has no room: {error}") from error
        except (RedisError, OSError) as error:
            raise TierGone(f"the server at {self._where} did not do what it was asked ({error})") from error
