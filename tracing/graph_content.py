"""LangChain's messages, tool calls and results in the form of the GenAI conventions: roles, and parts of kinds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage
from langchain_core.messages import ToolCall as Called
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool

from . import names

Part = dict[str, Any]


def asked(messages: Sequence[BaseMessage], tools: object = None) -> dict[str, object]:
    """What a model is asked: its instructions are the system messages at the head, the rest is the conversation."""
    head = list(takewhile(lambda message: isinstance(message, SystemMessage), messages))
    found: dict[str, object] = {names.INPUT_MESSAGES: [_message(each) for each in messages[len(head) :]]}
    if head:
        found[names.SYSTEM_INSTRUCTIONS] = [part for each in head for part in _parts(each.content)]
    if isinstance(tools, list | tuple) and tools:
        found[names.TOOL_DEFINITIONS] = [_definition(each) for each in tools]
    return found


def answered(result: ChatResult) -> dict[str, object]:
    """What a model has answered."""
    chosen = [each for each in result.generations if isinstance(each, ChatGeneration)]
    return {names.OUTPUT_MESSAGES: [said(each.message, each.generation_info) for each in chosen]}


def said(message: BaseMessage, info: dict[str, Any] | None = None) -> dict[str, Any]:
    """One answer, and why it came to its end."""
    about = message.response_metadata | (info or {})
    why = about.get("finish_reason") or about.get("stop_reason") or ("tool_call" if _calls(message) else "stop")
    return _message(message) | {"finish_reason": str(why)}


def arguments(tool: BaseTool, given: object) -> object:
    """What a model gave a tool, without what the framework puts in: state, stores, runtimes."""
    if isinstance(given, dict):
        given = given.get("args", given) if given.get("type") == "tool_call" else given
    # A private helper of LangChain's own tracing; a LangChain without it gives what the tool's schema shows.
    sieve = getattr(tool, "_filter_injected_args", None)
    if callable(sieve) and isinstance(given, dict):
        return sieve(given)
    known = tool.args if isinstance(given, dict) else {}
    return {key: value for key, value in given.items() if key in known} if isinstance(given, dict) else given


def result_of(result: object) -> object:
    """What a tool gave back: of a message its content."""
    return result.content if isinstance(result, ToolMessage) else result


def _message(message: BaseMessage) -> dict[str, Any]:
    if isinstance(message, ToolMessage):
        part: Part = {"type": "tool_call_response", "id": message.tool_call_id, "response": message.content}
        return {"role": "tool", "parts": [part]}
    parts = [*_parts(message.content), *(_call(each) for each in _calls(message))]
    return {"role": _ROLES.get(message.type, message.type), "parts": parts}


def _parts(content: object) -> Iterable[Part]:
    if isinstance(content, str):
        return [{"type": "text", "content": content}] if content else []
    blocks = content if isinstance(content, list) else [content]
    return [part for each in blocks if (part := _part(each)) is not None]


def _part(block: object) -> Part | None:
    if not isinstance(block, dict):
        return {"type": "text", "content": str(block)}
    match block.get("type"):
        case "text":
            return {"type": "text", "content": block.get("text", "")}
        case "reasoning" | "thinking" as kind:
            return {"type": "reasoning", "content": block.get(kind, "")}
        case "tool_use" | "tool_call" | "tool_call_chunk" | "function_call" | "input_json_delta":
            return None  # the message's own tool calls say the same
    return block


def _calls(message: BaseMessage) -> list[Called]:
    return message.tool_calls if isinstance(message, AIMessage) else []


def _call(call: Called) -> Part:
    return {"type": "tool_call", "id": call["id"], "name": call["name"], "arguments": call["args"]}


def _definition(tool: object) -> object:
    """A tool as it is bound to a model: in OpenAI's form, in Anthropic's, or as an object."""
    if isinstance(tool, BaseTool):
        return {"type": "function", "name": tool.name, "description": tool.description, "parameters": tool.args}
    if not isinstance(tool, dict):
        return str(tool)
    about = tool.get("function", tool)
    if not isinstance(about, dict) or "name" not in about:
        return tool
    shape = about.get("parameters", about.get("input_schema"))
    found = {"name": about["name"], "description": about.get("description"), "parameters": shape}
    return {"type": "function"} | {key: value for key, value in found.items() if value is not None}


_ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant", "HumanMessageChunk": "user"}
