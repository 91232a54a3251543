"""vLLM's KV connector that moves nothing and keeps what agents will come back for.

    --kv-transfer-config '{"kv_connector": "SostenutoConnector", "kv_role": "kv_producer",
      "kv_connector_module_path": "sostenuto.runtime.engines.vllm.connector"}'

A request asks with `kv_transfer_params={"sostenuto": {"session": "agent-1", "lease_s": 2.0}}`. Leases give way exactly
where otherwise a request would wait or be preempted: vLLM asks its connector at both places.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    SupportsHMA,
)
from vllm.logger import init_logger
from vllm.v1.request import RequestStatus

from .channel import Channel, NoChannel, place
from .keeper import Keeper, Shape
from .leases import Terms

logger = init_logger("vllm.sostenuto")


class Nothing(KVConnectorMetadata):  # type: ignore[misc] # vLLM has no types where we are checked
    """Workers have nothing to do."""


class SostenutoConnector(KVConnectorBase_V1, SupportsHMA):  # type: ignore[misc]
    """Holds blocks of finished requests by one reference each. Its terms come from `kv_connector_extra_config`."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        self._terms = Terms(**(vllm_config.kv_transfer_config.kv_connector_extra_config or {}))
        self._engine = vllm_config.kv_transfer_config.engine_id
        self._sizes = [group.kv_cache_spec.block_size for group in kv_cache_config.kv_cache_groups]
        self._keeper: Keeper | None = None
        self._channel: Channel | None = None
        self._pool: Any = None
        self._spare = 0
        self._busy = False
        self._wanted = False

    @property
    def requires_kv_delivery(self) -> bool:
        """Nothing is handed on, so preempted requests need not be protected."""
        return False

    # -- in the scheduler's process

    def bind_kv_cache_manager(self, kv_cache_manager: Any) -> None:
        """The pool is there: begin."""
        super().bind_kv_cache_manager(kv_cache_manager)
        self._pool = kv_cache_manager.block_pool
        # A block of every kind more than it has tokens for: what it says first may need one.
        self._spare = kv_cache_manager.watermark_blocks + len(self._sizes)
        self._keeper = Keeper(self._pool, Shape(self._sizes[0], len(self._sizes)), self._terms, time.monotonic)
        if not self._pool.enable_caching:
            logger.warning("sostenuto: prefix caching is off, so nothing can be held")
        path = place(self._engine)
        try:
            self._channel = Channel(path, self._keeper.answer)
        except (NoChannel, OSError) as error:
            logger.warning("sostenuto: leases are kept, but nobody can ask for them: no socket %s: %s", path, error)

    def on_new_request(self, request: Any) -> None:
        """A request has come."""
        self._kept.arrive(request.request_id, request.kv_transfer_params)

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        """A request is about to be let in; its blocks are asked for right after this call."""
        self._wanted = True
        need = sum(-(-request.num_tokens // size) for size in self._sizes) + self._spare
        if need > self._pool.get_num_free_blocks():
            hits = self._hits(request, num_computed_tokens)
            shared = sum(self._pool.blocks[block].ref_cnt > 0 for block in hits)
            self._kept.admit(need - shared, hits, patient=self._busy)
        return 0, False

    def has_pending_block_frees(self) -> bool:
        """A running request finds no room, and somebody would be preempted: leases give way first."""
        return self._kept.relieve()

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Nothing is loaded."""

    def build_connector_meta(self, scheduler_output: Any) -> Nothing:
        """A step begins."""
        self._busy = bool(scheduler_output.num_scheduled_tokens)
        self._kept.tick()
        if self._wanted and not self._busy:
            # Somebody waits and nobody runs, however it was reckoned: no lease may stand against that.
            self._kept.relieve()
        self._wanted = False
        return Nothing()

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """As `request_finished_all_groups`, where there is one group."""
        return self.request_finished_all_groups(request, (block_ids,))

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        """A request has ended: hold what it wants held. vLLM frees its own references as ever."""
        # A stop string is found in another process, which then aborts the request: that is an end like others.
        broken = request.status == RequestStatus.FINISHED_ABORTED
        answer = self._kept.finish(request.request_id, request.kv_transfer_params, block_ids, broken=broken)
        return False, None if answer is None else {"sostenuto": answer}

    def reset_cache(self) -> bool:
        """End every lease, so that the prefix cache can be emptied."""
        self._kept.clear()
        return True

    def shutdown(self) -> None:
        """Stop answering."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            with suppress(OSError):
                channel.close()

    @property
    def _kept(self) -> Keeper:
        assert self._keeper is not None  # vLLM binds the pool before it takes requests
        return self._keeper

    def _hits(self, request: Any, computed: int) -> frozenset[int]:
        """The blocks in which the request finds its first `computed` tokens, where there is but one group."""
        if len(self._sizes) > 1:
            return frozenset()
        found = (self._pool.get_cached_block(name, [0]) for name in request.block_hashes[: computed // self._sizes[0]])
        return frozenset(group[0].block_id for group in found if group)

    # -- in the workers: nothing moves

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Nothing is loaded."""

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Nothing is loaded."""

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        """Nothing is saved."""

    def wait_for_save(self) -> None:
        """Nothing is saved."""
