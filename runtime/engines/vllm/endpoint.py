"""HTTP routes for leases, as a plug-in of vLLM's server: named `sostenuto` in `VLLM_PLUGINS`.

GET /sostenuto/leases tells the table, POST takes a list of actions: {"session": "agent-1", "verb": "hold",
"seconds": 60}. Where the server wants an API key, so do these.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from vllm import envs
from vllm.logger import init_logger

from .channel import NoChannel, ask, place
from .wishes import NAME, PATH

logger = init_logger("vllm.sostenuto")

MOST = 1024
"""Actions of one request."""
_BEST = ("accepted", "clipped", "refused", "missing")


class Endpoint:
    """The plug-in."""

    name = NAME
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._engine = ""
        self._facts: dict[str, Any] = {}

    def attach_router(self, app: Any) -> None:
        """Add the routes."""
        app.add_api_route(PATH, self.look, methods=["GET"], tags=[NAME])
        app.add_api_route(PATH, self.act, methods=["POST"], tags=[NAME])

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """The engine is known now."""
        self._keys = [key for key in (args.api_key or [envs.VLLM_API_KEY]) if key]
        config = engine_client.vllm_config
        transfer = config.kv_transfer_config
        if transfer is None or transfer.kv_connector != "SostenutoConnector":
            logger.warning("sostenuto: the plug-in is on and its connector is not: see --kv-transfer-config")
            return
        self._engine = transfer.engine_id
        self._facts = {"scheduling": config.scheduler_config.policy, "dtype": str(config.model_config.dtype)}

    async def look(self, request: Request) -> JSONResponse:
        """The table of every engine behind this server; with one engine, its own."""
        return await self._answered(request, None)

    async def act(self, request: Request) -> JSONResponse:
        """Carry out a list of actions; each gets its answer, in order."""
        try:
            actions = json.loads(await request.body())
        except ValueError as error:
            return JSONResponse({"error": f"the body is no JSON: {error}"}, 400)
        if not isinstance(actions, list) or len(actions) > MOST:
            return JSONResponse({"error": f"expected a list of at most {MOST} actions"}, 400)
        return await self._answered(request, actions)

    async def _answered(self, request: Request, message: list[object] | None) -> JSONResponse:
        if self._keys and not self._known(request):
            return JSONResponse({"error": "Unauthorized"}, 401)
        if not self._engine:
            return JSONResponse({"error": "no connector: start the server as `sostenuto vllm` prints it"}, 503)
        try:
            found = [await ask(path, message) for path in self._places()]
        except NoChannel as error:
            return JSONResponse({"error": str(error)}, 503)
        if message is None:
            return JSONResponse(self._facts | (found[0] if len(found) == 1 else {"engines": found}))
        rows = zip(*(each["answers"] for each in found), strict=True)
        return JSONResponse({"answers": [min(row, key=lambda one: _BEST.index(one["answer"])) for row in rows]})

    def _places(self) -> list[Path]:
        """Engines that share the load have their rank behind the name."""
        first = place(self._engine)
        ranks = sorted(first.parent.parent.glob(f"{first.parent.name}_dp*/{first.name}"))
        return ranks or [first]

    def _known(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        known = [secrets.compare_digest(given.encode(), key.encode()) for key in self._keys]
        return scheme.lower() == "bearer" and any(known)
