"""What programs are built of: a state that gathers words, models that say what they are told, tools with probes."""

from __future__ import annotations

import asyncio
import json
import operator
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Annotated, Any, TypedDict

from langchain_core.callbacks import Callbacks
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.graph import START, StateGraph
from pydantic import Field

from .ground import MODEL, Ground

ASK: Any = {"messages": [("user", "go")]}
EMPTY: Any = {"seen": []}
THREAD: Any = {"configurable": {"thread_id": "t"}}


class Seen(TypedDict):
    """What most programs pass round."""

    seen: Annotated[list[str], operator.add]


class Model(BaseChatModel):
    """Says its answers one after the other, each within a probe `model n`."""

    answers: Sequence[AIMessage]
    ground: Any
    said: list[int] = Field(default_factory=list)
    model_name: str = "scripted"
    """Some trace no model that does not say its name."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _next(self) -> AIMessage:
        self.said.append(1)
        return self.answers[(len(self.said) - 1) % len(self.answers)].model_copy()

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        with self.ground.probe(f"model {len(self.said) + 1}", run_manager or MODEL):
            return ChatResult(generations=[ChatGeneration(message=self._next())])


class Awaited(Model):
    """The same, awaited."""

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        with self.ground.probe(f"model {len(self.said) + 1}", run_manager or MODEL):
            await asyncio.sleep(0)
            return ChatResult(generations=[ChatGeneration(message=self._next())])


class Words(Awaited):
    """The same, word by word."""

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        for number, chunk in enumerate(self._chunks()):
            with self.ground.probe(f"word {number}", run_manager or MODEL):
                chunk.message.response_metadata["word"] = number
            yield chunk

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for number, chunk in enumerate(self._chunks()):
            with self.ground.probe(f"word {number}", run_manager or MODEL):
                await asyncio.sleep(0)
            yield chunk

    def _chunks(self) -> list[ChatGenerationChunk]:
        answer = self._next()
        words = [AIMessageChunk(content=each) for each in str(answer.content).split()]
        calls = [
            tool_call_chunk(name=each["name"], args=json.dumps(each["args"]), id=each["id"], index=index)
            for index, each in enumerate(answer.tool_calls)
        ]
        last = AIMessageChunk(content="", tool_call_chunks=calls, usage_metadata=answer.usage_metadata)
        return [ChatGenerationChunk(message=each) for each in [*words, last]]


def calls(*named: tuple[str, dict[str, Any]]) -> AIMessage:
    """An answer that calls tools, under the ids `name-n`."""
    wanted = [{"name": name, "args": args, "id": f"{name}-{n}"} for n, (name, args) in enumerate(named)]
    return AIMessage("", tool_calls=wanted)


def rounds(count: int = 2) -> list[AIMessage]:
    """So many rounds of two calls each, and an answer."""
    return [*(calls(("echo", {"text": f"a{n}"}), ("echo", {"text": f"b{n}"})) for n in range(count)), AIMessage("done")]


def a_tool(ground: Ground, name: str = "echo", then: Callable[[str], Any] | None = None) -> BaseTool:
    """A tool in the program's way, with a probe `tool {text}` inside. `then` makes its answer of the text."""
    answer: Callable[[str], Any] = str.upper if then is None else then

    def body(text: str, callbacks: Callbacks = None) -> Any:
        with ground.probe(f"tool {text}", callbacks):
            return answer(text)

    async def abody(text: str, callbacks: Callbacks = None) -> Any:
        with ground.probe(f"tool {text}", callbacks):
            await asyncio.sleep(0)
            found = answer(text)
            return await found if asyncio.iscoroutine(found) else found

    given = {"func": body} if ground.way == "sync" else {"coroutine": abody}
    return StructuredTool.from_function(**given, name=name, description="Says it again.")


def chain(ground: Ground, *names: str, **bodies: Any) -> Any:
    """Nodes in a row; those not given a body say their name."""
    graph: Any = StateGraph(Seen)
    for above, name in zip((START, *names), names, strict=False):
        graph.add_node(name, bodies.get(name) or ground.node(name))
        graph.add_edge(above, name)
    return graph
