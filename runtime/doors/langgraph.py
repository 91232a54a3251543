"""A chat model for LangGraph whose context survives its tool calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ...kvstore import CodecName
from ...tools import read_choice, read_tools
from ..engines import Mode
from ..host import Host
from ..sampling import Sampling
from ..shared import shared_host
from .langgraph_call import Call
from .langgraph_messages import KEY
from .langgraph_saver import BoundSaver
from .langgraph_structured import structured
from .langgraph_tools import ToolGuard, once, tool_node
from .langgraph_whence import abegun, begun, identified, telling, whence
from .langgraph_wrap import wrap

__all__ = ["BoundSaver", "ChatSostenuto", "ToolGuard", "tool_node", "wrap"]


class ChatSostenuto(BaseChatModel):
    """A model that runs in this process, over paged keys and values that are kept while tools run.

    Give a `host` of your own, or `model`, `mode`, `policy`, `pool_tokens`, `host_tokens`, `store`, `store_tokens` and
    `remote`: then models that agree in these share one. Every other field is a sampling parameter; a call can override
    it: `model.invoke(..., seed=1)`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", populate_by_name=True)

    host: Host | None = Field(default=None, exclude=True)
    model: str | None = None
    """A directory, a GGUF file or a hub id; None is the packaged SmolLM2-135M-Instruct."""
    mode: Mode = "exact"
    """`exact`: an answer has the same bits whoever else is there, where the processor gives that; `fast`: steps of few
    rows read a GGUF file's own blocks, and what is said is marked as not exact."""
    policy: str = "sostenuto"
    pool_tokens: int = 16_384
    host_tokens: int = 0
    """Tokens of contexts that are kept in host memory when they leave the device."""
    store: str | None = None
    """A folder for contexts that wait for a person: they outlive the process."""
    store_tokens: int | None = None
    """Tokens that are kept there, besides those of durable marks; without an end if it is not said."""
    remote: str | None = Field(default=None, repr=False)
    """The address of a Redis or Valkey where hosts of one model share contexts; it may hold a password."""
    codec: CodecName = "raw"
    """How contexts are stored in all of these: bit for bit, or in fewer bytes, as which they share nothing with exact
    ones; what is said is then marked as not exact."""
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
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
            self.host = self._shared(self.model)
        return self.host

    @property
    def _llm_type(self) -> str:
        return KEY

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("model", "mode", "policy", "temperature", "seed")}

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
        call = self._call(messages, stop, run_manager, kwargs)
        with call.span(stream=False) as span:
            return call.result(call.ask().wait(), span)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._call(messages, stop, run_manager, kwargs)
        with call.span(stream=False) as span:
            return call.result(await call.ask().arrive(), span)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call = self._call(messages, stop, run_manager, kwargs)
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
        call = self._call(messages, stop, run_manager, kwargs)
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

    def _call(self, messages: list[BaseMessage], stop: list[str] | None, manager: Any, given: dict[str, Any]) -> Call:
        told = {"constrain": self.constrain, "timeout": self.timeout, "codec": self.codec, **given}
        return Call(self._host_for(given), messages, self._sampling(stop, given), whence(manager), told)

    def _host_for(self, given: dict[str, Any]) -> Host:
        other = given.get("model")
        if other is None or other == self.model:
            return self.served_by
        return self._shared(other)

    def _shared(self, model: str | None) -> Host:
        return shared_host(
            model,
            mode=self.mode,
            policy=self.policy,
            pool_tokens=self.pool_tokens,
            host_tokens=self.host_tokens,
            store=self.store,
            store_tokens=self.store_tokens,
            remote=self.remote,
        )

    def _sampling(self, stop: list[str] | None, given: dict[str, Any]) -> Sampling:
        values = {name: given.get(name, getattr(self, name)) for name in _SAMPLED}
        if values["max_tokens"] is None:
            values["max_tokens"] = self.max_tokens
        values["stop"] = tuple(stop or values["stop"] or ())
        return Sampling(**values)


_SAMPLED = tuple(name for name in Sampling.__slots__ if name in ChatSostenuto.model_fields)
