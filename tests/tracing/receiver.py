"""An OTLP collector of our own: both protocols on this machine, real wires, everything received as plain values."""

from __future__ import annotations

import gzip
import json
import threading
import zlib
from base64 import b64decode
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services

from sostenuto.tracing import Record
from sostenuto.tracing.records import decode


@dataclass
class Inbox:
    """What has arrived."""

    requests: list[dict[str, Any]] = field(default_factory=list)
    """Trace requests as OTLP JSON."""
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def records(self) -> list[Record]:
        """All spans so far."""
        return [record for request in self.requests for record in decode(request)]

    def take(self, request: dict[str, Any], headers: Mapping[str, str], path: str) -> None:
        """Notes one export."""
        self.requests.append(request)
        self.headers.append(dict(headers))
        self.paths.append(path)


@dataclass(frozen=True)
class Receiver:
    """Where to send, and what came."""

    port: int
    inbox: Inbox


@contextmanager
def receive_http(status: int = 200) -> Iterator[Receiver]:
    """A collector that speaks OTLP over HTTP; with another status it refuses everything."""
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            # A collector knows one path; what comes to another was not meant for it.
            code = status if self.path.partition("?")[0].endswith("/v1/traces") else 404
            if code == 200:
                headers = {name.lower(): value for name, value in self.headers.items()}
                inbox.take(_request(body, headers), headers, self.path)
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing on standard error."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Receiver(server.server_address[1], inbox)
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def receive_grpc() -> Iterator[Receiver]:
    """A collector that speaks OTLP over gRPC."""
    inbox = Inbox()

    class Service(services.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            inbox.take(_json(request), dict(context.invocation_metadata()), "")
            return messages.ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    services.add_TraceServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield Receiver(port, inbox)
    finally:
        server.stop(None).wait()


def _request(body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    match headers.get("content-encoding"):
        case "gzip":
            body = gzip.decompress(body)
        case "deflate":
            body = zlib.decompress(body)
    if headers.get("content-type") == "application/json":
        found: dict[str, Any] = json.loads(body)
        return found
    return _json(messages.ExportTraceServiceRequest.FromString(body))


def _json(request: Message) -> dict[str, Any]:
    """OTLP JSON differs from protobuf's own in its ids and enums."""
    found: dict[str, Any] = MessageToDict(request, use_integers_for_enums=True)
    for span in spans_in(found):
        for each in (span, *span.get("links", ())):
            for key in ("traceId", "spanId", "parentSpanId"):
                if key in each:
                    each[key] = b64decode(each[key]).hex()
    return found


def spans_in(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The spans of a trace request, to be looked at or changed."""
    for group in request.get("resourceSpans", ()):
        for scope in group.get("scopeSpans", ()):
            yield from scope.get("spans", ())
