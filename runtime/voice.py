"""How a model speaks: its tokenizer, its template, its dialect of tool calls, and grammars for both."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

from ..tools import Dialect, Grammar, GrammarRefused, dialect_for
from ..tools.grammars.llguidance import LLGuidanceCompiler
from ..tracing import names, work_span
from .ask import Ask
from .detokenize import Detokenizer
from .engines import Speaker
from .errors import BadMessage
from .render import Renderer


class Voice:
    """Everything that is needed to put a question to a model that takes token ids."""

    def __init__(self, speaker: Speaker, name: str) -> None:
        tokenizer = speaker.tokenizer
        self.dialect: Dialect = dialect_for(name, getattr(tokenizer, "chat_template", None))
        self.render = Renderer(tokenizer, self.dialect, speaker.eos)
        self.compiler = LLGuidanceCompiler(tokenizer.backend_tokenizer.to_str(), eos=speaker.eos, vocab=speaker.vocab)
        self._tokenizer = tokenizer
        self._eos = frozenset(speaker.eos)
        self._vocab = speaker.vocab

    def constrains(self, ask: Ask) -> bool:
        """Whether a grammar is wanted at all."""
        return ask.schema is not None or (ask.constrain and bool(ask.tools))

    def grammar(self, ask: Ask, said: Sequence[int] = ()) -> Grammar | None:
        """What holds the model to what was asked for, behind the tokens that an answer has already."""
        if not self.constrains(ask):
            return None
        with work_span(names.CONSTRAIN, {names.GRAMMAR: "tools" if ask.schema is None else "schema"}):
            if ask.schema is not None:
                grammar: Grammar | None = self.compiler.schema(ask.schema)
            else:
                grammar = self._calls(ask)
            if grammar is not None:
                for token in said:
                    grammar.accept(token)
                grammar.mask()  # what cannot be followed at all is refused here, not in a step that others share
            return grammar

    def least(self, ask: Ask, enough: int) -> int:
        """Tokens below which there is no call, where one must come; 0 where `enough` are plainly enough."""
        if ask.schema is not None or not self.constrains(ask):
            return 0
        may = {tool.name for tool in ask.granted or ()}
        granted = [tool for tool in ask.tools if tool.name in may and ask.choice.name in (None, tool.name)]
        return self.compiler.least(granted or ask.tools, ask.choice, self.dialect, enough=enough)

    def _calls(self, ask: Ask) -> Grammar | None:
        """Of what is granted, where the choice leaves any of it; what is not is refused when it is called."""
        granted = [tool for tool in ask.granted or () if ask.choice.mode != "named" or tool.name == ask.choice.name]
        if granted:
            try:
                return self.compiler.tools(granted, ask.choice, self.dialect, parallel=ask.parallel)
            except GrammarRefused:  # a grant's schema with the tool's may be more than the engine can do
                names = {tool.name for tool in granted}
                whole = [tool for tool in ask.tools if tool.name in names]
                return self.compiler.tools(whole, ask.choice, self.dialect, parallel=ask.parallel)
        return self.compiler.tools(ask.tools, ask.choice, self.dialect, parallel=ask.parallel)

    def check(self, given: Sequence[int]) -> tuple[int, ...]:
        """The same as token ids. Raises BadMessage for what are none, or none of this model's."""
        try:
            tokens = tuple(map(index, given))
        except TypeError as error:
            raise BadMessage(f"expected token ids, whole numbers, and {error}") from error
        if tokens and not 0 <= min(tokens) <= max(tokens) < self._vocab:
            wrong = next(token for token in tokens if not 0 <= token < self._vocab)
            raise BadMessage(f"found the token id {wrong}; this model has 0 to {self._vocab - 1}")
        return tokens

    def spell(self, tokens: Sequence[int], stop: Sequence[str] = ()) -> str:
        """The text that was told of an answer that has come so far."""
        out = Detokenizer(self._tokenizer, stop)
        return "".join(out.feed(token)[0] for token in tokens if token not in self._eos)
