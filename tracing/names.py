"""Span and attribute names: the GenAI conventions in one place, pinned to a version, and our own beside them.

The `gen_ai.*` names are those of OpenTelemetry's GenAI conventions (status Development), as published with
`opentelemetry-semantic-conventions` `SEMCONV_VERSION` and as its successor repository spells what has moved
since. `langgraph.*` are facts of LangGraph, for which no convention exists. `sostenuto.*` are ours. No
`gen_ai.*` name is invented here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Value = str | bool | int | float | Sequence[str] | Sequence[int]
Facts = Mapping[str, Value]
"""Attribute keys and their values: plain data, so that no room needs another's types to be traced."""

SEMCONV_VERSION = "0.66b2"
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
SCOPE = "sostenuto"

# Operations, and the first word of a span's name.
CHAT = "chat"
EXECUTE_TOOL = "execute_tool"
INVOKE_AGENT = "invoke_agent"
INVOKE_WORKFLOW = "invoke_workflow"
RUN_STEP = "run_step"
SUPERSTEP = "superstep"
ATTEMPT = "attempt"

# Our engine's own work, as spans under the model call, and events on them.
QUEUE = "queue"
PREFILL = "prefill"
DECODE = "decode"
CONSTRAIN = "constrain"
KV_HOLD = "kv.hold"
KV_DEMOTE = "kv.demote"
KV_RESTORE = "kv.restore"
KV_FORK = "kv.fork"
KV_ROLLBACK = "kv.rollback"
KV_EVICT = "kv.evict"
PREEMPT = "preempt"

# The GenAI conventions.
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
WORKFLOW = "gen_ai.workflow.name"
AGENT = "gen_ai.agent.name"
AGENT_ID = "gen_ai.agent.id"
STEP_NAME = "gen_ai.step.name"
CONVERSATION = "gen_ai.conversation.id"
OUTPUT_TYPE = "gen_ai.output.type"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_TOP_P = "gen_ai.request.top_p"
REQUEST_TOP_K = "gen_ai.request.top_k"
REQUEST_SEED = "gen_ai.request.seed"
REQUEST_STOP = "gen_ai.request.stop_sequences"
REQUEST_STREAM = "gen_ai.request.stream"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
FINISH_REASONS = "gen_ai.response.finish_reasons"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ = "gen_ai.usage.cache_read.input_tokens"
CACHE_CREATION = "gen_ai.usage.cache_creation.input_tokens"
CACHE_WRITE = "gen_ai.usage.cache_write.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
TOOL = "gen_ai.tool.name"
TOOL_CALL_ID = "gen_ai.tool.call.id"
TOOL_TYPE = "gen_ai.tool.type"
TOOL_DESCRIPTION = "gen_ai.tool.description"
ERROR_TYPE = "error.type"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
SESSION = "session.id"
"""Always the same as `CONVERSATION`: three back ends group by it."""

# LangGraph's facts.
GRAPH_THREAD = "langgraph.thread_id"
GRAPH_CHECKPOINT = "langgraph.checkpoint_id"
GRAPH_CHECKPOINT_NS = "langgraph.checkpoint_ns"
GRAPH_RESUMED = "langgraph.resumed"
GRAPH_RESUMED_TRACE = "langgraph.resumed_from.trace_id"
GRAPH_RESUMED_SPAN = "langgraph.resumed_from.span_id"
GRAPH_STEPS = "langgraph.steps"
GRAPH_STATUS = "langgraph.status"
GRAPH_STEP = "langgraph.step"
GRAPH_STEP_TASKS = "langgraph.step.tasks"
GRAPH_STEP_NODES = "langgraph.step.nodes"
GRAPH_NODE = "langgraph.node"
GRAPH_TASK = "langgraph.task.id"
GRAPH_TRIGGERS = "langgraph.triggers"
GRAPH_PATH = "langgraph.path"
GRAPH_VISIT = "langgraph.visit"
GRAPH_GOTO = "langgraph.goto"
GRAPH_ATTEMPT = "langgraph.attempt"
GRAPH_ATTEMPTS = "langgraph.attempts"
GRAPH_LINKS = "langgraph.links"
GRAPH_INTERRUPTS = "langgraph.interrupt.ids"

# Our own.
PROGRAM = "sostenuto.program.id"
TURN = "sostenuto.turn.id"
POLICY = "sostenuto.policy"
KV_HIT_TOKENS = "sostenuto.kv.hit_tokens"
KV_COMPUTED_TOKENS = "sostenuto.kv.computed_tokens"
KV_RECOMPUTED_TOKENS = "sostenuto.kv.recomputed_tokens"
"""Computed though they had been computed before; `KV_WHY` says why."""
KV_TOKENS = "sostenuto.kv.tokens"
KV_BLOCKS = "sostenuto.kv.blocks"
KV_TIER = "sostenuto.kv.tier"
KV_WHY = "sostenuto.kv.why"
HELD_UNTIL = "sostenuto.hold.until"
HOLD_WHY = "sostenuto.hold.why"
QUEUE_SECONDS = "sostenuto.queue.seconds"
OUTCOME = "sostenuto.outcome"
"""`cancelled` or `closed`, on a span whose work was given up rather than failed; absent otherwise."""
LINK = "sostenuto.link"
"""Why a link: `trigger` (wrote what started the node), `visit` (its last one), `resume`, `previous`."""

# Events.
EVENT_INTERRUPT = "interrupt"
EVENT_HANDOFF = "handoff"
EVENT_DRAINED = "drained"
EVENT_FIRST_CHUNK = "first_chunk"


def conversation(id: str | None) -> dict[str, Value]:
    """The attributes that put a span into a conversation; none for None."""
    return {} if id is None else {CONVERSATION: id, SESSION: id}


def usage(
    input_tokens: int, output_tokens: int, *, read: int | None = None, written: int | None = None
) -> dict[str, Value]:
    """Token counts. `read`: input tokens served from a cache; `written`: input tokens newly kept in it.

    Back ends know the latter as `cache_creation`, newer conventions as `cache_write`: both are written.
    """
    facts: dict[str, Value] = {INPUT_TOKENS: input_tokens, OUTPUT_TOKENS: output_tokens}
    if read is not None:
        facts[CACHE_READ] = read
    if written is not None:
        facts[CACHE_CREATION] = facts[CACHE_WRITE] = written
    return facts
