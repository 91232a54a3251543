"""What a vLLM server is and has, looked at once before the first turn."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from ...errors import EngineFailed, Unable
from .wishes import PATH

TIMEOUT = httpx.Timeout(30.0, read=120.0)
"""The first request of a server may compile."""
_ANYTHING = "start: /(.|\\n)*/\n"


@dataclass(frozen=True, slots=True)
class Server:
    """One look at it."""

    url: str
    model: str
    """The name under which it is asked for."""
    root: str
    """Where the server has it from: a path or a hub id."""
    longest: int
    block: int = 0
    """Tokens of a block; 0 where it does not say."""
    blocks: int = 0
    """Of the pool; 0 where it does not say."""
    version: str = ""
    leases: bool = False
    """Our plug-in and our connector are there."""
    caching: bool = True
    """Requests share what they begin with."""
    counted: bool = False
    """It tells how much of a prompt it found in its cache."""
    grammar: bool = False
    """It takes our grammars."""
    priority: bool = False
    """It schedules by priority; elsewhere a request that has one is refused."""
    fields: frozenset[str] = frozenset()
    """What it knows of a completion request; empty where it does not say."""
    lacks: tuple[str, ...] = ()
    """What a user may want to switch on, in words."""

    def takes(self, field: str) -> bool:
        """Whether a field of a request will be read."""
        return not self.fields or field in self.fields

    @classmethod
    def look(cls, client: httpx.Client, url: str, *, model: str | None = None) -> Server:
        """Raises EngineFailed where nobody answers, and Unable for what cannot be used as vLLM is."""
        card = _card(client, url, model)
        known = {"url": url, "model": card["id"], "root": str(card.get("root") or card["id"])}
        version = _json(client, "/version").get("version", "")
        fields = _fields(_json(client, "/openapi.json"))
        cache = _cache(client)
        table = _json(client, PATH)
        pool = table.get("pool") or {}
        asked = _try(client, card["id"], fields)
        server = cls(
            **known,
            longest=int(card.get("max_model_len") or 0),
            block=int(pool.get("block") or cache.get("block_size") or 0),
            blocks=int(pool.get("blocks") or cache.get("num_gpu_blocks") or 0),
            version=str(version),
            leases=bool(pool),
            caching=cache.get("enable_prefix_caching", "True") == "True",
            counted=asked["counted"],
            grammar=asked["grammar"],
            priority=table.get("scheduling") == "priority",
            fields=fields,
            lacks=tuple(_lacks(table, cache, asked, fields)),
        )
        if not server.longest:
            raise Unable(f"{url} does not say how long a context of {server.model} may be: it is no vLLM server")
        return server


def fault(response: httpx.Response) -> str:
    """What a refusal says, read already."""
    try:
        found = response.json()
    except ValueError:
        found = response.text
    if isinstance(found, dict):
        error = found.get("error", found.get("detail", found))
        found = error.get("message", error) if isinstance(error, dict) else error
    return f"{response.status_code}: {str(found)[:500]}"


def _card(client: httpx.Client, url: str, model: str | None) -> Mapping[str, Any]:
    try:
        response = client.get("/v1/models")
    except httpx.HTTPError as error:
        raise EngineFailed(
            f"nobody answers at {url} ({error}): start the server, `sostenuto vllm` prints how"
        ) from error
    if response.status_code != 200:
        raise EngineFailed(f"{url} does not list its models ({fault(response)}): is the address right, and the key?")
    listed = _object(response).get("data")
    found = listed if isinstance(listed, list) else []
    cards = {card["id"]: card for card in found if isinstance(card, dict) and isinstance(card.get("id"), str)}
    if not cards or (model is not None and model not in cards):
        raise EngineFailed(f"{url} serves {', '.join(cards) or 'nothing'}, not {model or 'a model'}")
    return cards[model] if model is not None else next(iter(cards.values()))


def _json(client: httpx.Client, path: str) -> dict[str, Any]:
    """What a path tells; nothing where there is no such path."""
    try:
        response = client.get(path)
    except httpx.HTTPError:
        return {}
    return _object(response) if response.status_code == 200 else {}


def _object(response: httpx.Response) -> dict[str, Any]:
    """The JSON object in a response; an empty one where there is something else."""
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _fields(openapi: Mapping[str, Any]) -> frozenset[str]:
    schemas = (openapi.get("components") or {}).get("schemas") or {}
    return frozenset((schemas.get("CompletionRequest") or {}).get("properties") or ())


def _cache(client: httpx.Client) -> dict[str, str]:
    """The labels of the metric in which vLLM tells of its cache."""
    try:
        response = client.get("/metrics")
    except httpx.HTTPError:
        return {}
    found = re.search(r"^vllm:cache_config_info\{(.*)\}", response.text if response.status_code == 200 else "", re.M)
    labels = dict(re.findall(r'(\w+)="([^"]*)"', found[1])) if found else {}
    return {name: value for name, value in labels.items() if value != "None"}


def _try(client: httpx.Client, model: str, fields: frozenset[str]) -> dict[str, bool]:
    """Ask for one token: what comes back tells what the server can."""
    body: dict[str, Any] = {"model": model, "prompt": [0], "max_tokens": 1, "return_token_ids": True}
    constrained = {**body, "structured_outputs": {"grammar": _ANYTHING}}
    try:
        response = client.post("/v1/completions", json=constrained)
        grammar = response.status_code == 200 and (not fields or "structured_outputs" in fields)
        if response.status_code != 200:
            response = client.post("/v1/completions", json=body)
    except httpx.HTTPError as error:
        raise EngineFailed(f"{client.base_url} broke off at its first request: {error}") from error
    if response.status_code != 200:
        raise EngineFailed(f"{client.base_url} refuses a plain completion ({fault(response)})")
    found = _object(response)
    choice = next(iter(found.get("choices") or ()), None)
    if not isinstance(choice, dict) or not isinstance(choice.get("token_ids"), list):
        raise Unable(
            f"{client.base_url} gives no token ids, as vLLM does with return_token_ids: speak to it as an "
            "OpenAI-compatible server"
        )
    return {"grammar": grammar, "counted": bool((found.get("usage") or {}).get("prompt_tokens_details"))}


def _lacks(
    table: Mapping[str, Any], cache: Mapping[str, str], asked: Mapping[str, bool], fields: frozenset[str]
) -> list[str]:
    lacks = []
    if not table:
        lacks.append("holds: start it with our connector and VLLM_PLUGINS=sostenuto, as `sostenuto vllm` prints it")
    if cache.get("enable_prefix_caching", "True") != "True":
        lacks.append("shared prefixes: start it with --enable-prefix-caching")
    if not asked["counted"]:
        lacks.append("cached tokens: start it with --enable-prompt-tokens-details")
    if not asked["grammar"]:
        lacks.append("our grammars: start it with --structured-outputs-config.backend guidance")
    if fields and "session_id" not in fields:
        lacks.append("session_id: its own events do not know whose blocks they tell of")
    return lacks
