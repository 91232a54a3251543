"""Who may answer when no grant allows a call: rules, a person, an authorisation server. Asked one after the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Protocol

import httpx

from ...tools import Problem, Tool
from ...tools.contracts import Effects, misfits
from ...tools.grants import Ceiling


@dataclass(frozen=True, slots=True)
class GrantRequired:
    """A call that no grant allows, and what is between the two."""

    tool: Tool
    arguments: Mapping[str, Any]
    gap: tuple[Problem, ...]
    effects: Effects
    tenant: str
    session: str
    call: str
    """The call's id."""
    alone: bool = True
    """Nobody else of the same node can be asking at the same time."""
    scopes: tuple[str, ...] = ()
    """What the tool's server said it needs, where it was that which refused."""
    server: str = ""
    """Whose tool it is."""


@dataclass(frozen=True, slots=True)
class Given:
    """A right to this one call, and perhaps a token for it."""

    ceiling: Ceiling = field(default_factory=lambda: Ceiling(calls=1))
    by: str = ""
    token: str | None = field(default=None, repr=False)


class GrantProvider(Protocol):
    """One that may be asked. None: not for me to say; the next one is asked, and after the last the call is denied."""

    def ask(self, required: GrantRequired) -> Given | None:
        """In the thread, and the context, of the node that makes the call."""
        ...

    async def aask(self, required: GrantRequired) -> Given | None:
        """The same in its event loop."""
        ...


@dataclass(frozen=True, slots=True)
class Rule:
    """Lets pass what fits all of it. `*` stands for any text in tool and tenant."""

    tool: str
    tenant: str = "*"
    constraint: Mapping[str, Any] = field(default_factory=dict)
    effects: tuple[Effects, ...] = ("pure", "read")


class Rules:
    """A static policy: the first rule that fits a call lets it pass, once."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)

    def ask(self, required: GrantRequired) -> Given | None:
        if required.scopes:
            return None  # it is not ours to say what a server must let pass
        for number, rule in enumerate(self._rules, 1):
            if (
                fnmatchcase(required.tool.name, rule.tool)
                and fnmatchcase(required.tenant, rule.tenant)
                and required.effects in rule.effects
                and not misfits(rule.constraint, dict(required.arguments))
            ):
                return Given(Ceiling(rule.constraint, calls=1, effects=required.effects), f"rule {number}")
        return None

    async def aask(self, required: GrantRequired) -> Given | None:
        return self.ask(required)


class TokenExchange:
    """A narrower token from an authorisation server, for one call (OAuth 2.0 Token Exchange, RFC 8693).

    `subject` gives the token of the user for whom a session runs; `scopes` those that a call needs, where its server
    has not named them. The audience is the tool's server (RFC 8707), so that no other can use the token.
    """

    def __init__(
        self,
        url: str,
        *,
        subject: Callable[[GrantRequired], str | None],
        scopes: Callable[[GrantRequired], Sequence[str]],
        audience: str,
        client: httpx.Client | None = None,
        async_client: httpx.AsyncClient | None = None,
    ) -> None:
        if not url.startswith(("https://", "http://127.0.0.1", "http://localhost", "http://[::1]")):
            raise ValueError(f"url: found {url!r}; expected https://, since tokens go there")
        self._url = url
        self._subject = subject
        self._scopes = scopes
        self._audience = audience
        self._client = client
        self._async_client = async_client

    def ask(self, required: GrantRequired) -> Given | None:
        body = self._body(required)
        if body is None:
            return None
        if self._client is not None:
            return self._read(self._client.post(self._url, data=body), required)
        with httpx.Client(follow_redirects=False) as client:
            return self._read(client.post(self._url, data=body), required)

    async def aask(self, required: GrantRequired) -> Given | None:
        body = self._body(required)
        if body is None:
            return None
        if self._async_client is not None:
            return self._read(await self._async_client.post(self._url, data=body), required)
        async with httpx.AsyncClient(follow_redirects=False) as client:
            return self._read(await client.post(self._url, data=body), required)

    def _body(self, required: GrantRequired) -> dict[str, str] | None:
        token = self._subject(required)
        if token is None:
            return None
        return {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "audience": self._audience,
            "resource": self._audience,
            "scope": " ".join(required.scopes or self._scopes(required)),
        }

    def _read(self, response: httpx.Response, required: GrantRequired) -> Given | None:
        if response.status_code != httpx.codes.OK:
            return None
        try:
            told = response.json()
        except ValueError:
            return None
        token = told.get("access_token") if isinstance(told, dict) else None
        if not isinstance(token, str) or not token:
            return None
        wanted = set(required.scopes or self._scopes(required))
        given = set(str(told.get("scope", " ".join(wanted))).split())  # left out: as asked for (RFC 6749, 5.1)
        lasts = told.get("expires_in")
        if not wanted <= given or (isinstance(lasts, int | float) and lasts <= 0):
            return None
        seconds = float(lasts) if isinstance(lasts, int | float) else None
        return Given(Ceiling(calls=1, seconds=seconds, effects=required.effects), "token exchange", token)


def needed_scopes(error: BaseException) -> tuple[str, ...]:
    """The scopes that a server asked for when it refused a call (403, `insufficient_scope`); none for other faults.

    As the Model Context Protocol has it since 2026-07-28, after RFC 6750 section 3.
    """
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := needed_scopes(each))), ())
    response = getattr(error, "response", None)
    if getattr(response, "status_code", None) != 403:
        return ()
    challenge = str(getattr(response, "headers", {}).get("www-authenticate", ""))
    if 'error="insufficient_scope"' not in challenge:
        return ()
    scope = re.search(r'[\s,]scope="([^"\\]{1,2000})"', challenge)
    return tuple(scope[1].split()) if scope else ()
