"""What is traced and how, chosen once and in use from then on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from .errors import BadOption

Redact = Callable[[str, object], object | None]
"""An attribute's name and its value before it is written as JSON, to what shall be recorded; None: nothing."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is traced and how. Raises `BadOption` for a value of the wrong kind."""

    tracer_provider: TracerProvider | None = None
    """Where spans go; None: to the global provider."""
    meter_provider: MeterProvider | None = None
    """Where metrics go; None: to the global provider."""
    supersteps: bool = True
    """A span for each superstep."""
    content: bool = False
    """Messages, arguments, results and the text of exceptions are recorded."""
    redact: Redact | None = None
    """Sees every piece of content first."""
    openinference: bool = False
    """OpenInference's names beside the others, for Phoenix."""
    langfuse: bool = False
    """Langfuse's names beside the others."""

    def __post_init__(self) -> None:
        for name, kind in (("tracer_provider", TracerProvider), ("meter_provider", MeterProvider)):
            given = getattr(self, name)
            if given is not None and not isinstance(given, kind):
                raise BadOption(name, given, f"a {kind.__name__} of OpenTelemetry, or None for the global one")
        for name in ("supersteps", "content", "openinference", "langfuse"):
            if not isinstance(getattr(self, name), bool):
                raise BadOption(name, getattr(self, name), "True or False")
        if self.redact is not None and not callable(self.redact):
            raise BadOption("redact", self.redact, "a function of an attribute's name and its value, or None")

    @property
    def dialects(self) -> bool:
        """Whether anybody's names but the GenAI conventions' and ours are asked for."""
        return self.openinference or self.langfuse

    @property
    def values(self) -> bool:
        """Whether graphs and nodes record what they were given and gave: only other people's names have room for it."""
        return self.content and self.dialects

    def differing(self, other: Options) -> list[str]:
        """The names of the options that the two do not have in common."""
        return [each.name for each in fields(self) if getattr(self, each.name) != getattr(other, each.name)]


def use(options: Options | None) -> None:
    """Traces like this from now on, whatever opens the spans; None: by the defaults. `instrument` does it for you."""
    global _in_use
    _in_use = options or Options()


def in_use() -> Options:
    """How it is traced now."""
    return _in_use


_in_use = Options()
