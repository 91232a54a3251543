"""What goes wrong at the HTTP door, as status and words in OpenAI's form."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from ...tools import ToolError
from ..errors import (
    BadMessage,
    BadRequest,
    BadSampling,
    Blocked,
    EngineFailed,
    HostClosed,
    Limited,
    Refused,
    SostenutoError,
    TooLate,
)

_log = logging.getLogger(__name__)


class TurnedAway(SostenutoError):
    """A request that comes no further than the door: wrong key, wrong model, too large, too many at once."""

    def __init__(self, status: int, code: str, message: str, *, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Fault:
    """An error as a client sees it."""

    status: int
    message: str
    kind: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """OpenAI's form."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


# OpenAI's clients ask again by themselves on 408, 409, 429 and 5xx, unless they are told not to.
_ONCE = {"x-should-retry": "false"}
_SOON = {"retry-after": "1"}

FAULTS = (SostenutoError, ToolError)
"""What `fault_of` knows; anything else is a defect of ours, and a 500 without words."""


def fault_of(error: Exception) -> Fault:
    """The status and the words for an error.

    What is wrong with the request is 400, and so is a turn that can never run: asking again would not help. An answer
    that took longer than the caller gives it is 504. A host that is closing is 503: another process may take over.
    """
    said = str(error)
    match error:
        case TurnedAway(status=status, kind=kind, code=code):
            return Fault(status, said, kind, code, headers=_headers_of(status))
        case BadRequest(field=name):
            return Fault(400, said, param=name or None)
        case BadSampling() | BadMessage():
            return Fault(400, said, param=said.partition(":")[0] if isinstance(error, BadSampling) else "messages")
        case ToolError():
            return Fault(400, said, code=type(error).__name__)
        case Limited(retry_after=seconds):
            return Fault(429, said, "rate_limit_error", "limited", headers={"retry-after": str(max(1, ceil(seconds)))})
        case Blocked():
            return Fault(400, said, code="blocked", headers=_ONCE)
        case Refused():
            return Fault(400, said, code="refused")
        case TooLate():
            return Fault(504, said, "timeout_error", "too_late", headers=_ONCE)
        case HostClosed():
            return Fault(503, said, "server_error", "host_closed", headers=_SOON)
        case EngineFailed():
            return Fault(500, said, "server_error", "engine_failed")
        case SostenutoError():
            return Fault(400, said, code=type(error).__name__)
    return Fault(500, "the server failed; its log says why", "server_error")


def noted(error: Exception, fault: Fault) -> None:
    """What is our fault goes into the log, with all that led to it; what was the client's it has been told."""
    if fault.status == 500:
        _log.error("a request failed: %s", error, exc_info=error)


def _headers_of(status: int) -> dict[str, str]:
    return {401: {"www-authenticate": "Bearer"}, 429: _SOON}.get(status, {})
