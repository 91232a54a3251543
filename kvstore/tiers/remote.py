"""Blocks in Redis or Valkey: shared by many hosts, gone when that server loses them. The only file that knows redis.

A key is `sostenuto:`, the digest of the seal, a colon and the block's name, so that what one model or tenant wrote is
not even asked for by another; its value is the record. It needs the extra `redis`, and an event loop of asyncio.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
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


class RemoteTier:
    """A Tier behind the address of a server. `put` promises what the server does: usually memory, no fsync.

    The server may expire and evict as it is told to: what it lost is absent. One that cannot be reached, refuses or
    does not answer in time raises TierGone, from every method, and is asked again by the next call.
    """

    def __init__(
        self, url: str, *, seal: Seal, name: str = "remote", timeout: float = 5.0, expire: int | None = None
    ) -> None:
        """Connects when it is first used. `expire`: seconds after which the server forgets a block; None: never.

        Raises ValueError for an address that is none, such as redis://host:6379/0.
        """
        self.name = name
        self.counts = Counts()
        self._seal = seal.digest
        self._prefix = b"sostenuto:" + self._seal.hex().encode() + b":"
        self._expire = expire
        self._closed = False
        # Every call is tried once: whoever waits for a block would rather compute it than wait again.
        self._client: Redis = Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
        )
        known = self._client.connection_pool.connection_kwargs
        self._where = str(known.get("path") or f"{known.get('host', 'localhost')}:{known.get('port', 6379)}")

    async def put(self, records: Mapping[BlockHash, Buffer]) -> None:
        """As Tier says. Raises Mismatch for a record of another seal; nothing is stored then."""
        found = heads(records)
        for head in found.values():
            if head.seal != self._seal:
                raise Mismatch(
                    f"block {head.name.hex()}", (f"its seal is {head.seal.hex()}, this tier's {self._seal.hex()}",)
                )
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
        return block.name == name and block.seal == self._seal

    async def _asked(self, ask: Callable[..., Awaitable[Any]], *what: Any) -> Any:
        if self._closed:
            raise TierGone(f"the tier {self.name} is closed")
        try:
            return await ask(*what)
        except OutOfMemoryError as error:
            raise TierFull(f"the server at {self._where} has no room: {error}") from error
        except (RedisError, OSError) as error:
            raise TierGone(f"the server at {self._where} did not do what it was asked ({error})") from error
