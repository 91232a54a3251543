"""Messages to tokens, so that what the model said is never spelled anew.

Token ids are the truth: an answer that carries the ids which the model sampled enters the next prompt as those ids.
Only what others wrote is tokenised. The prompt of a turn therefore begins, token for token, with the context that
the turn before it left, as long as the template only appends.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Any

from ..tools import Dialect, Tool, render_calls, render_examples, render_result, render_tools
from .ask import Message
from .errors import BadMessage


class Renderer:
    """Puts conversations before one model: its tokenizer, its template and its dialect of tool calls."""

    def __init__(self, tokenizer: Any, dialect: Dialect, eos: Sequence[int]) -> None:
        self.dialect = dialect
        self._tokenizer = tokenizer
        self._eos = frozenset(eos)
        self._special = _special(tokenizer)
        # A place holder that nobody can have written: what stands in its place is spliced in as ids.
        self._mark = f"said-{secrets.token_hex(8)}-"

    def tokens(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        """The prompt that asks for the next answer. Raises BadMessage if there is nothing to answer."""
        if not messages:
            raise BadMessage("there are no messages: give at least one")
        plain: list[str] = []
        chat = self._chat(messages, tools, plain)
        # A dialect without a system text of its own has a template that lists the tools itself.
        offered = {"tools": [_offer(tool) for tool in tools]} if tools and not self.dialect.system else {}
        text = self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **offered)
        return self._splice(str(text), messages, plain)

    def _chat(self, messages: Sequence[Message], tools: Sequence[Tool], plain: list[str]) -> list[dict[str, Any]]:
        """The conversation as the template takes it, with what others wrote made harmless."""
        dialect = self.dialect
        chat: list[dict[str, Any]] = []
        system = "\n\n".join(message.text for message in messages if message.role == "system")
        system = f"{system}\n\n{render_tools(dialect, tools)}".strip()
        if system:
            chat.append({"role": "system", "content": self._defused(system, plain)})
        examples = render_examples(dialect, tools)
        chat += [{"role": role, "content": self._defused(text, plain)} for role, text in examples]
        for index, message in enumerate(messages):
            if message.role == "system":
                continue
            entry = self._entry(index, message, plain)
            # Where results are written as a user's turn, those of parallel calls share one: turns must alternate.
            if message.role == "tool" and dialect.result_role == "user" and messages[index - 1].role == "tool":
                chat[-1]["content"] += "\n" + entry["content"]
            else:
                chat.append(entry)
        return chat

    def _entry(self, index: int, message: Message, plain: list[str]) -> dict[str, Any]:
        dialect = self.dialect
        said = self._defused(message.text, plain)
        match message.role:
            case "assistant":
                if message.tokens:
                    return {"role": "assistant", "content": f"{self._mark}{index}-"}
                # The dialect's own marks stay what they are; in the arguments they are text.
                calls = render_calls(dialect, [(call.name, self._defused(call.text, plain)) for call in message.calls])
                return {"role": "assistant", "content": "\n".join(part for part in (said, calls) if part)}
            case "tool":
                result = self._defused(render_result(dialect, message.tool, message.text), plain)
                return {"role": dialect.result_role, "name": message.tool, "content": result}
            case _:
                return {"role": message.role, "content": said}

    def _defused(self, content: str, plain: list[str]) -> str:
        """What others wrote must not end their turn or begin another: control tokens in it are spelled as text."""
        if self._special is None:
            return content

        def hide(found: re.Match[str]) -> str:
            plain.append(found[0])
            return f"{self._mark}t{len(plain) - 1}-"

        return self._special.sub(hide, content)

    def _splice(self, text: str, messages: Sequence[Message], plain: Sequence[str]) -> tuple[int, ...]:
        ids: list[int] = []
        first, *rest = text.split(self._mark)
        ids += self._encode(first)
        for part in rest:
            index, _, tail = part.partition("-")
            if index.startswith("t"):
                spelled = plain[int(index[1:])]
                # In two parts, neither of which is the token.
                ids += self._encode(spelled[:1]) + self._encode(spelled[1:]) + self._encode(tail)
                continue
            said = list(messages[int(index)].tokens)
            while said and said[-1] in self._eos:
                said.pop()  # the template ends the turn itself
            ids += said
            ids += self._encode(tail)
        return tuple(ids)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False)) if text else []


def _offer(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _special(tokenizer: Any) -> re.Pattern[str] | None:
    """Whatever the tokenizer would read as a control token."""
    words = [str(word) for word in getattr(tokenizer, "all_special_tokens", ()) if len(str(word)) > 1]
    words.sort(key=len, reverse=True)
    return re.compile("|".join(map(re.escape, words))) if words else None
