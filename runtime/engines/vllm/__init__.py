"""vLLM underneath, unpatched: what runs inside its server, and the engine that speaks to it.

`connector`, `endpoint` and all they import run in vLLM's own environment: nothing there may need a dependency of ours.
"""

from __future__ import annotations
