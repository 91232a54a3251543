"""Sostenuto: holds an agent's context while its tools run."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["ChatSostenuto", "Host", "Session", "ToolGuard", "__version__", "instrument", "tool_node", "wrap"]

# The front door: each name and the room it comes from. Importing the package costs next to nothing and
# pulls in no torch; a room is opened when one of its names is first asked for.
_LAZY = {
    "ChatSostenuto": ".runtime.doors.langgraph",
    "Host": ".runtime.host",
    "Session": ".runtime.session",
    "ToolGuard": ".runtime.doors.langgraph",
    "instrument": ".tracing",
    "tool_node": ".runtime.doors.langgraph",
    "wrap": ".runtime.doors.langgraph",
}

if TYPE_CHECKING:
    from .runtime.doors.langgraph import ChatSostenuto, ToolGuard, tool_node, wrap
    from .runtime.host import Host
    from .runtime.session import Session
    from .tracing import instrument
else:

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {sorted(_LAZY)}")
        value = getattr(import_module(_LAZY[name], __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
