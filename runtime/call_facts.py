"""A turn's facts as the attributes of a span."""

from __future__ import annotations

from typing import Any

from ..tracing import names
from .answer import Answer
from .ticket import Facts


def answer_attributes(answer: Answer, model: str) -> dict[str, Any]:
    """What came of a call: how its answer ended, and what became of its context."""
    return {
        names.RESPONSE_MODEL: model,
        names.RESPONSE_ID: answer.facts.turn,
        names.FINISH_REASONS: ("tool_call" if answer.calls else answer.reason,),
        **kv_attributes(answer.facts),
    }


def kv_attributes(facts: Facts) -> dict[str, Any]:
    """What became of a turn's context: by OpenTelemetry's names where there are any, else by ours."""
    reason = {names.HOLD_WHY: facts.hold_why, names.HELD_UNTIL: facts.held_until} if facts.held_s else {}
    lossy = {} if facts.exact else {names.KV_EXACT: False, names.KV_DROPPED_TOKENS: facts.dropped_tokens}
    return {
        names.INPUT_TOKENS: facts.prompt_tokens,
        names.OUTPUT_TOKENS: facts.said_tokens,
        names.CACHE_READ: facts.reused_tokens,
        names.CACHE_CREATION: facts.computed_tokens,
        names.CACHE_WRITE: facts.computed_tokens,
        names.PROGRAM: facts.program,
        names.TURN: facts.turn,
        names.POLICY: facts.policy,
        names.MODE: facts.mode,
        names.KV_HIT_TOKENS: facts.reused_tokens,
        names.KV_COMPUTED_TOKENS: facts.computed_tokens + facts.recomputed_tokens,
        names.KV_RECOMPUTED_TOKENS: facts.recomputed_tokens + facts.lost_tokens,
        names.KV_TIER: facts.tier,
        names.KV_WHY: facts.lost_why or facts.why,
        names.QUEUE_SECONDS: facts.queued_s,
        **({} if facts.exact else {names.KV_CODEC: facts.codec}),
        **reason,
        **lossy,
    }
