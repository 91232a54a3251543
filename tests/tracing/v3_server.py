"""Answers in the shape of Jaeger's query API from what our own collector got. It is not Jaeger.

It checks the reader in `jaeger.py`, so that the reader is right on the day when a real Jaeger is there.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .receiver import Inbox, spans_in

Answer = tuple[int, dict[str, Any]]


@contextmanager
def answer_as_v3(inbox: Inbox) -> Iterator[str]:
    """The address of a server that answers from an inbox."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, found = _answer(inbox, self.path)
            body = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Nothing on standard error."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _answer(inbox: Inbox, path: str) -> Answer:
    url = urlsplit(path)
    asked = {key: values[0] for key, values in parse_qs(url.query).items()}
    match unquote(url.path).removeprefix("/api/v3/").split("/"):
        case ["services"]:
            return 200, {"services": sorted({_service(group) for group in _groups(inbox)})}
        case ["operations"]:
            return 200, {"operations": _operations(inbox, asked["service"])}
        case ["traces", wanted]:
            return _found(inbox, {wanted})
        case ["traces"]:
            return _found(inbox, _searched(inbox, asked))
    return 404, {"error": {"httpCode": 404, "message": f"no route {path}"}}


def _found(inbox: Inbox, wanted: set[str]) -> Answer:
    groups = [_only(group, wanted) for group in _groups(inbox)]
    kept = [group for group in groups if group["scopeSpans"]]
    if not kept:
        return 404, {"error": {"httpCode": 404, "message": "No traces found"}}
    return 200, {"result": {"resourceSpans": kept}}


def _only(group: dict[str, Any], wanted: set[str]) -> dict[str, Any]:
    scopes = [
        scope | {"spans": [span for span in scope["spans"] if span["traceId"] in wanted]}
        for scope in group["scopeSpans"]
    ]
    return group | {"scopeSpans": [scope for scope in scopes if scope["spans"]]}


def _searched(inbox: Inbox, asked: dict[str, str]) -> set[str]:
    """Jaeger wants both times, and finds traces by one span that has all of the attributes."""
    first, last = (datetime.fromisoformat(asked[f"query.startTime{end}"]).timestamp() for end in ("Min", "Max"))
    wanted = json.loads(asked.get("query.attributes", "{}"))
    return {
        span["traceId"]
        for group in _groups(inbox)
        if _service(group) == asked["query.serviceName"]
        for span in spans_in({"resourceSpans": [group]})
        if first <= int(span["startTimeUnixNano"]) / 1e9 <= last
        and wanted.items() <= {each["key"]: _text(each["value"]) for each in span["attributes"]}.items()
    }


def _operations(inbox: Inbox, service: str) -> list[dict[str, str]]:
    named = {
        (span["name"], _KINDS[span["kind"]])
        for group in _groups(inbox)
        if _service(group) == service
        for span in spans_in({"resourceSpans": [group]})
    }
    return [{"name": name, "spanKind": kind} for name, kind in sorted(named)]


def _groups(inbox: Inbox) -> list[dict[str, Any]]:
    return [group for request in inbox.requests for group in request["resourceSpans"]]


def _service(group: dict[str, Any]) -> str:
    return next(_text(each["value"]) for each in group["resource"]["attributes"] if each["key"] == "service.name")


def _text(value: dict[str, Any]) -> str:
    return str(next(iter(value.values())))


_KINDS = ("", "internal", "server", "client", "producer", "consumer")
