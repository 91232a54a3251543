"""Names of spans, attributes and metrics: the GenAI conventions in one place, pinned to a version, and our own.

The `gen_ai.*` names are those of OpenTelemetry's GenAI conventions (status Development), as published with
`opentelemetry-semantic-conventions` `SEMCONV_VERSION` and as its successor repository spells what has moved
since. `langgraph.*` are facts of LangGraph, for which no convention exists. `sostenuto.*` are ours. No
`gen_ai.*` name is invented here. Other people's names for the same things are in `dialects`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Value = str | bool | int | float | Sequence[str] | Sequence[int]
Facts = Mapping[str, Value]
"""Attribute keys and their values: plain data, so that no room needs another's types to be traced."""

SEMCONV_VERSION = "0.66b2"
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
SCOPE = "sostenuto"
"""Who made a span or a metric; beside the package's version."""

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
KV_THIN = "kv.thin"
KV_EVICT = "kv.evict"
KV_SNAPSHOT = "kv.snapshot"
PREEMPT = "preempt"

# The GenAI conventions.
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
WORKFLOW = "gen_ai.workflow.name"
AGENT = "gen_ai.agent.name"
AGENT_ID = "gen_ai.agent.id"
AGENT_DESCRIPTION = "gen_ai.agent.description"
AGENT_VERSION = "gen_ai.agent.version"
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
TOKEN_TYPE = "gen_ai.token.type"
"""`input` or `output`; on metrics."""
ERROR_TYPE = "error.type"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
EXCEPTION = "exception"
EXCEPTION_TYPE = "exception.type"
EXCEPTION_MESSAGE = "exception.message"
EXCEPTION_STACK = "exception.stacktrace"
MCP_METHOD = "mcp.method.name"
MCP_SESSION = "mcp.session.id"
MCP_VERSION = "mcp.protocol.version"
MCP_RESOURCE = "mcp.resource.uri"
PROMPT = "gen_ai.prompt.name"
RPC_STATUS = "rpc.response.status_code"
"""The code of a JSON-RPC error."""
SESSION = "session.id"
"""Always the same as `CONVERSATION`: three back ends group by it."""
USER = "user.id"
"""Only where the program says who it is, and a dialect asks."""

PROVIDERS: Mapping[str, str] = {
    "amazon_bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "ibm": "ibm.watsonx.ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "xai": "x_ai",
}
"""What LangChain calls a provider, and what the conventions do; the others are called the same."""

# Content, as JSON: recorded only on demand.
SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
TOOL_DEFINITIONS = "gen_ai.tool.definitions"
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_RESULT = "gen_ai.tool.call.result"
INPUT_VALUE = "input.value"
OUTPUT_VALUE = "output.value"
"""What a graph or a node was given, and gave: OpenInference's names, for the GenAI conventions have none."""

# LangGraph's facts.
GRAPH_THREAD = "langgraph.thread_id"
GRAPH_CHECKPOINT = "langgraph.checkpoint_id"
GRAPH_CHECKPOINT_END = "langgraph.checkpoint_id.end"
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
GRAPH_CACHED = "langgraph.cached"
GRAPH_LINKS = "langgraph.links"
GRAPH_INTERRUPTS = "langgraph.interrupt.ids"

# Our own.
PROGRAM = "sostenuto.program.id"
TURN = "sostenuto.turn.id"
POLICY = "sostenuto.policy"
MODE = "sostenuto.engine.mode"
KV_HIT_TOKENS = "sostenuto.kv.hit_tokens"
KV_COMPUTED_TOKENS = "sostenuto.kv.computed_tokens"
KV_RECOMPUTED_TOKENS = "sostenuto.kv.recomputed_tokens"
"""Computed though they had been computed before; `KV_WHY` says why."""
KV_TOKENS = "sostenuto.kv.tokens"
KV_DROPPED_TOKENS = "sostenuto.kv.dropped_tokens"
"""Of so many tokens each head has lost its keys and values on purpose."""
KV_EXACT = "sostenuto.kv.exact"
"""False where tokens were dropped, so that the answer is not what the model would have said; absent otherwise."""
KV_BLOCKS = "sostenuto.kv.blocks"
PREFILL_TOKENS = "sostenuto.prefill.tokens"
DECODE_TOKENS = "sostenuto.decode.tokens"
FORCED_TOKENS = "sostenuto.constrain.forced_tokens"
"""Said because the grammar left no other."""
GRAMMAR = "sostenuto.constrain.grammar"
"""`tools` or `schema`."""
KV_KEY = "sostenuto.kv.key"
"""A name that a mark was given."""
KV_BRANCHES = "sostenuto.kv.branches"
HOLD_TOOLS = "sostenuto.hold.tools"
KV_TIER = "sostenuto.kv.tier"
KV_CODEC = "sostenuto.kv.codec"
"""A lossy codec, through which keys and values may have been; absent where they are exact."""
KV_KIND = "sostenuto.kv.kind"
"""`hit`, `computed` or `recomputed`; on metrics."""
KV_WHY = "sostenuto.kv.why"
HELD_UNTIL = "sostenuto.hold.until"
HOLD_WHY = "sostenuto.hold.why"
HOLD_END = "sostenuto.hold.end"
"""How a hold came to its end, in one word of few; on metrics."""
QUEUE_SECONDS = "sostenuto.queue.seconds"
OUTCOME = "sostenuto.outcome"
"""`cancelled` or `closed`, on a span whose work was given up rather than failed; absent otherwise."""
LINK = "sostenuto.link"
"""Why a link: `trigger` (wrote what started the node), `visit` (its last one), `resume`, `previous`, `hold`."""

# Events.
EVENT_INTERRUPT = "interrupt"
EVENT_HANDOFF = "handoff"
EVENT_DRAINED = "drained"
EVENT_FIRST_CHUNK = "first_chunk"

# Metrics. Those of the conventions; the three of agents and tools are literals in OpenTelemetry's own util-genai
# 1.3b0, and `run_step` has a proposal only (pull request 188).
CLIENT_DURATION = "gen_ai.client.operation.duration"
CLIENT_TOKENS = "gen_ai.client.token.usage"
CLIENT_FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
CLIENT_PER_CHUNK = "gen_ai.client.operation.time_per_output_chunk"
SERVER_DURATION = "gen_ai.server.request.duration"
SERVER_FIRST_TOKEN = "gen_ai.server.time_to_first_token"
SERVER_PER_TOKEN = "gen_ai.server.time_per_output_token"
WORKFLOW_DURATION = "gen_ai.invoke_workflow.duration"
AGENT_DURATION = "gen_ai.invoke_agent.duration"
TOOL_DURATION = "gen_ai.execute_tool.duration"
STEP_DURATION = "gen_ai.run_step.duration"
HTTP_DURATION = "http.server.request.duration"

# Ours.
QUEUE_DURATION = "sostenuto.queue.duration"
TURN_TOKENS = "sostenuto.turn.tokens"
TURNS_IN_FLIGHT = "sostenuto.turns.in_flight"
KV_TOKENS_COUNT = "sostenuto.kv.tokens"
KV_HELD_BLOCKS = "sostenuto.kv.held_blocks"
KV_HOLDS = "sostenuto.kv.holds"


def conversation(id: str | None) -> dict[str, Value]:
    """The attributes that put a span into a conversation; none for None."""
    return {} if id is None else {CONVERSATION: id, SESSION: id}


def agent(told: Mapping[str, object]) -> dict[str, Value]:
    """What a graph's metadata says of the agent it is, under the very names of its attributes."""
    found = ((name, told.get(name)) for name in (AGENT_ID, AGENT_DESCRIPTION, AGENT_VERSION))
    return {name: value for name, value in found if isinstance(value, str)}
