"""What a server counts, as a page for Prometheus: metrics of its own, and all that this process counts while it runs.

The numbers go through OpenTelemetry's metrics API like all others, so nothing is counted in two ways; names and units
on the page are what OpenTelemetry's own exporter makes of them.
"""

from __future__ import annotations

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from .meters import Meters, join, meters
from .names import Facts


class Page:
    """A page with a registry of its own. It counts until nobody keeps it."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=self._registry)
        # It must not outlive its server: nothing is to be flushed at exit.
        self._provider = MeterProvider([reader], shutdown_on_exit=False)
        self._meters = Meters(self._provider)
        join(self._meters)

    def add(self, name: str, amount: int, facts: Facts) -> None:
        """Counts something of this server alone, on its page and where the process's metrics go."""
        for each in self._mine():
            each.add(name, amount, facts)

    def record(self, name: str, value: float, facts: Facts) -> None:
        """Notes a value of this server alone, likewise."""
        for each in self._mine():
            each.record(name, value, facts)

    def read(self, accept: str) -> tuple[bytes, str]:
        """Everything, in the format that the reader prefers, and that format's name."""
        encode, kind = choose_encoder(accept)
        return encode(self._registry), kind

    def _mine(self) -> tuple[Meters, ...]:
        return (self._meters, *meters(pages=False))
