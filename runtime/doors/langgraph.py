"""A chat model for LangGraph whose context survives its tool calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal
from uuid import uuid4

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ...scheduler import ProgramId
from ...tools import ArgumentsDelta, CallBegun, Delta, TextDelta, read_choice, read_tools
from ...tracing import ModelCall, Open, model_span, names, parent_from
from ..answer import Answering
from ..ask import Ask
from ..host import Host
from ..sampling import Sampling
from ..shared import shared_host
from ..ticket import Chunk, Facts
from .langgraph_messages import KEY, digest_of, metadata_of, read_messages, usage_of, write_message
from .langgraph_structured import structured
from .langgraph_tools import ToolGuard, once, tool_node
from .langgraph_whence import abegun, begun, identified, telling, whence
from .langgraph_wrap import lifecycle_of, program_of, wrap

__all__ = ["ChatSostenuto", "ToolGuard", "tool_node", "wrap"]


class ChatSostenuto(BaseChatModel):
    """A model that runs in this process, over paged keys and values that are kept while tools run.

    Give a `host` of your own, or `model`, `policy` and `pool_tokens`: then models that agree in these share one.
    Every other field is a sampling parameter; each can be overridden in a call (`model.invoke(..., seed=1)`).
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", populate_by_name=True)

    host: Host | None = Field(default=None, exclude=True)
    model: str | None = None
    """A directory, a GGUF file or a hub id; None is the packaged SmolLM2-135M-Instruct."""
    policy: str = "sostenuto"
    pool_tokens: int = 16_384
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    seed: int | None = None
    max_tokens: int = 512
    logprobs: int | None = None
    stop: list[str] | None = None
    timeout: float | None = None
    """Seconds an answer may take, waiting for admission included; then TooLate."""
    max_retries: int | None = None
    """For models behind a network, as `api_key` is: taken, so that models can be exchanged, and without effect."""
    api_key: SecretStr | None = Field(default=None, exclude=True)
    streaming: bool = False
    """Whether `invoke` streams inside, so that token callbacks are called."""
    constrain: bool = True
    """Off: nothing keeps the model from writing calls that do not fit; they are still checked."""

    _sostenuto_spans = True  # tracing leaves our calls to us: their spans carry the facts about the context

    @property
    def served_by(self) -> Host:
        """The host behind this model; opened on first use."""
        if self.host is None:
            self.host = shared_host(self.model, policy=self.policy, pool_tokens=self.pool_tokens)
        return self.host

    @property
    def _llm_type(self) -> str:
        return KEY

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "policy": self.policy, "temperature": self.temperature, "seed": self.seed}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = KEY
        params["ls_model_name"] = str(kwargs.get("model") or self.model or "SmolLM2-135M-Instruct")
        return params

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        parallel_tool_calls: bool = True,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools. Schemas are checked here, once: BadTool says what is wrong with which.

        `tool_choice`: "auto" (free text stays possible, a call once begun must be valid), "any", a name, "none".
        """
        specs = once(convert_to_openai_tool(tool) for tool in tools)
        offered = read_tools(specs)
        read_choice(tool_choice, offered)
        # So LangChain marks calls that are the answer itself: nobody runs them, and nobody comes back.
        returns = "ls_structured_output_format" not in kwargs
        given = {"tools": specs, "tool_choice": tool_choice, "parallel_tool_calls": parallel_tool_calls}
        return self.bind(**given, returns=returns, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Literal["function_calling", "json_schema", "json_mode"] = "function_calling",
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Answers as objects: by a call that must be made, or, for the other two methods, by an answer that is JSON.

        Either way the grammar holds the model to `schema`, so `strict` changes nothing.
        """
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        return structured(self, schema, raw=include_raw)

    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        told = identified(config)
        with telling(told):
            return super().invoke(input, told, **kwargs)

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        told = identified(config)
        with telling(told):
            return await super().ainvoke(input, told, **kwargs)

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        told = identified(config)
        return begun(super().stream(input, told, **kwargs), told)

    def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        told = identified(config)
        return abegun(super().astream(input, told, **kwargs), told)

    def stream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return super().stream_events(input, identified(config), **kwargs)

    def astream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return super().astream_events(input, identified(config), **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = _Call(self, messages, stop, run_manager, kwargs)
        with call.span(stream=False) as span:
            answering = call.ask()
            answer = answering.wait()
            span.set(call.facts(answer.facts))
        return _result(answering, self.served_by.engine.name)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = _Call(self, messages, stop, run_manager, kwargs)
        with call.span(stream=False) as span:
            answering = call.ask()
            answer = await answering.arrive()
            span.set(call.facts(answer.facts))
        return _result(answering, self.served_by.engine.name)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call = _Call(self, messages, stop, run_manager, kwargs)
        with call.span(stream=True) as span:
            answering = call.ask()
            for chunk in answering.ticket:
                for part in call.parts(answering, chunk, span):
                    if run_manager is not None:
                        run_manager.on_llm_new_token(part.text, chunk=part)
                    yield part

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call = _Call(self, messages, stop, run_manager, kwargs)
        with call.span(stream=True) as span:
            answering = call.ask()
            try:
                async for chunk in answering.ticket:
                    for part in call.parts(answering, chunk, span):
                        if run_manager is not None:
                            await run_manager.on_llm_new_token(part.text, chunk=part)
                        yield part
            finally:
                answering.ticket.cancel()  # a stream that was dropped would end the inner one only some time later


class _Call:
    """One call of the model: who asks, for what, and how its answer is told."""

    def __init__(
        self,
        model: ChatSostenuto,
        messages: Sequence[BaseMessage],
        stop: list[str] | None,
        manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
        given: Mapping[str, Any],
    ) -> None:
        self._host = _host_for(model, given)
        self._whence = whence(manager)
        self._sampling = _sampling(model, stop, given)
        tools = read_tools(given.get("tools") or ())
        schema = _schema(given.get("response_format"))
        self._ask = Ask(
            messages=read_messages(messages),
            tools=tools,
            choice=read_choice(given.get("tool_choice"), tools),
            parallel=bool(given.get("parallel_tool_calls", True)),
            returns=bool(given.get("returns", True)),
            constrain=model.constrain,
            schema=schema,
            sampling=self._sampling,
            program=self._program(messages),
            tended=self._tended,
            branch=self._whence.branch,
            tenant=self._whence.tenant,
            timeout=given.get("timeout", model.timeout),
        )

    def ask(self) -> Answering:
        return self._host.ask(self._ask)

    @contextmanager
    def span(self, *, stream: bool) -> Iterator[Open]:
        """The model's span: under the node that called, or where a wrapped run's own tracer says it stands."""
        sampling = self._sampling
        call = ModelCall(
            self._host.engine.name,
            provider=KEY,
            conversation=self._whence.thread,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or None,
            seed=sampling.seed,
            stop=sampling.stop,
            stream=stream,
            output="json" if self._ask.schema is not None else "text",
        )
        with model_span(call, parent=parent_from(self._whence.manager)) as opened:
            yield opened

    def facts(self, facts: Facts) -> dict[str, Any]:
        """What a span says about the context: by OpenTelemetry's names where there are any, else by ours."""
        return kv_attributes(facts)

    def parts(self, answering: Answering, chunk: Chunk, span: Open) -> Iterator[ChatGenerationChunk]:
        """What a chunk adds to the stream; the last one carries usage and ids."""
        for delta in answering.take(chunk):
            yield self._part(delta)
        answer = answering.answer
        if answer is None:
            return
        span.set(self.facts(answer.facts))
        told = write_message(answer, model=self._host.engine.name)
        last = AIMessageChunk(content="", chunk_position="last", invalid_tool_calls=told.invalid_tool_calls)
        last.usage_metadata = usage_of(answer.facts)
        last.response_metadata = metadata_of(answer, model=self._host.engine.name, digest=digest_of(told))
        yield ChatGenerationChunk(message=last, generation_info={"finish_reason": answer.reason})

    def _part(self, delta: Delta) -> ChatGenerationChunk:
        match delta:
            case TextDelta(text=text):
                return ChatGenerationChunk(message=AIMessageChunk(content=text))
            case CallBegun(index=index, id=name, name=tool):
                piece = tool_call_chunk(name=tool, args="", id=name, index=index)
            case ArgumentsDelta(index=index, text=text):
                piece = tool_call_chunk(name=None, args=text, id=None, index=index)
        return ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[piece]))

    def _program(self, messages: Sequence[BaseMessage]) -> ProgramId:
        whence, lifecycle = self._whence, lifecycle_of(self._whence.handlers)
        joined = lifecycle.join(whence.above, self._host, whence.tenant) if lifecycle else None
        # Without a thread or a wrapped graph a conversation is known by what we said in it.
        said = (m.response_metadata.get(KEY) for m in reversed(messages) if isinstance(m, AIMessage))
        before = next((ours["program"] for ours in said if isinstance(ours, dict) and "program" in ours), None)
        self._tended = joined is not None
        if joined is not None:
            return joined
        if whence.thread or before is None:
            return program_of(whence.tenant, whence.thread or f"alone-{uuid4()}")
        return ProgramId(before)


def kv_attributes(facts: Facts) -> dict[str, Any]:
    """A turn's facts as span attributes."""
    reason = {names.HOLD_WHY: facts.hold_why, names.HELD_UNTIL: facts.held_until} if facts.held_s else {}
    return {
        names.INPUT_TOKENS: facts.prompt_tokens,
        names.OUTPUT_TOKENS: facts.said_tokens,
        names.CACHE_READ: facts.reused_tokens,
        names.CACHE_CREATION: facts.computed_tokens,
        names.CACHE_WRITE: facts.computed_tokens,
        names.PROGRAM: facts.program,
        names.TURN: facts.turn,
        names.POLICY: facts.policy,
        names.KV_HIT_TOKENS: facts.reused_tokens,
        names.KV_COMPUTED_TOKENS: facts.computed_tokens + facts.recomputed_tokens,
        names.KV_TIER: "device",
        names.KV_WHY: facts.why,
        names.QUEUE_SECONDS: facts.queued_s,
        **reason,
    }


def _result(answering: Answering, model: str) -> ChatResult:
    assert answering.answer is not None
    message = write_message(answering.answer, model=model)
    info = {"finish_reason": message.response_metadata["finish_reason"]}
    return ChatResult(generations=[ChatGeneration(message=message, generation_info=info)])


def _host_for(model: ChatSostenuto, given: Mapping[str, Any]) -> Host:
    other = given.get("model")
    if other is None or other == model.model:
        return model.served_by
    return shared_host(other, policy=model.policy, pool_tokens=model.pool_tokens)


def _sampling(model: ChatSostenuto, stop: list[str] | None, given: Mapping[str, Any]) -> Sampling:
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "seed", "max_tokens")
    values = {name: given.get(name, getattr(model, name)) for name in (*names, "logprobs")}
    if values["max_tokens"] is None:
        values["max_tokens"] = model.max_tokens
    return Sampling(**values, stop=tuple(stop or given.get("stop") or model.stop or ()))


def _schema(wanted: Any) -> Mapping[str, Any] | None:
    """OpenAI's `response_format`: `{"type": "json_schema", "json_schema": {"schema": ...}}` or `json_object`."""
    match wanted:
        case None | {"type": "text"}:
            return None
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return schema
        case {"type": "json_object"}:
            return {"type": "object"}
    raise ValueError(
        f"response_format: found {wanted!r}; expected {{'type': 'json_schema', 'json_schema': {{'schema': ...}}}}"
    )
