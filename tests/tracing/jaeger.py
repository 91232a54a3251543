"""Reads traces from Jaeger by its query API, version 3, as its v2 servers answer it on port 16686."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import urlopen

from sostenuto.tracing import Record
from sostenuto.tracing.records import decode, traces


@dataclass(frozen=True, slots=True)
class Jaeger:
    """A Jaeger at this address."""

    url: str

    def services(self) -> list[str]:
        """The services that it has spans of."""
        return list(self._get("services")["services"])

    def operations(self, service: str) -> set[tuple[str, str]]:
        """The names of a service's spans, each with its kind in lower case."""
        found = self._get(f"operations?{urlencode({'service': service})}")["operations"]
        return {(each["name"], each["spanKind"].lower()) for each in found}

    def trace(self, trace_id: str) -> list[Record]:
        """The spans of a trace; none if it is not known, or not yet."""
        return list(decode(self._traces(f"traces/{quote(trace_id)}")))

    def find(
        self, service: str, *, since: int, until: int, attributes: Mapping[str, str] | None = None
    ) -> dict[str, list[Record]]:
        """The traces of a service between two times (nanoseconds since the epoch), by id."""
        query = {
            "query.serviceName": service,
            "query.startTimeMin": _rfc3339(since),
            "query.startTimeMax": _rfc3339(until),
            "query.searchDepth": "100",
        }
        if attributes:
            query["query.attributes"] = json.dumps(attributes)
        return traces(decode(self._traces(f"traces?{urlencode(query)}")))

    def _traces(self, path: str) -> dict[str, Any]:
        try:
            return self._get(path)
        except HTTPError as error:
            with error:
                if error.code != 404:
                    raise
                return {"resourceSpans": []}

    def _get(self, path: str) -> dict[str, Any]:
        with urlopen(f"{self.url.rstrip('/')}/api/v3/{path}", timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found


def _rfc3339(time: int) -> str:
    return datetime.fromtimestamp(time / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
