"""The command line of a vLLM server that holds what agents will come back for."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from .leases import Terms
from .wishes import NAME

CONNECTOR = {
    "kv_connector": "SostenutoConnector",
    "kv_role": "kv_producer",
    "kv_connector_module_path": f"{NAME}.runtime.engines.vllm.connector",
}
"""The role is the one under which vLLM expects nothing to be loaded; nothing is sent either."""


def command_line(
    model: str, *, port: int = 8000, host: str = "127.0.0.1", terms: Terms | None = None, more: Sequence[str] = ()
) -> list[str]:
    """`vllm serve` with our connector; `more` are flags of the user's own, which come last and so win."""
    transfer = CONNECTOR | ({"kv_connector_extra_config": asdict(terms)} if terms is not None else {})
    return [
        "vllm",
        "serve",
        model,
        "--host",
        host,
        "--port",
        str(port),
        "--enable-prefix-caching",
        "--enable-prompt-tokens-details",
        "--structured-outputs-config.backend",
        "guidance",
        "--kv-transfer-config",
        json.dumps(transfer),
        *more,
    ]


def environment(*, cpus: int | None = None, cache_gib: int = 1) -> dict[str, str]:
    """Variables that the server needs beside the user's own; with `cpus`, on how many processors it computes.

    Left to itself vLLM keeps a processor of a small machine for its front end.
    """
    found = {"VLLM_PLUGINS": NAME}
    if cpus is not None:
        found |= {"VLLM_CPU_KVCACHE_SPACE": str(cache_gib), "VLLM_CPU_OMP_THREADS_BIND": f"0-{cpus - 1}"}
    return found


def shown(command: Sequence[str], variables: Mapping[str, str]) -> str:
    """One line for a shell."""
    return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in variables.items()), shlex.join(command)])
