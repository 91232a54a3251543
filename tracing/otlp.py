"""Which of OTLP's protocols, and which address: what a URL or the standard variables say."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_PROTOCOL, OTEL_EXPORTER_OTLP_TRACES_PROTOCOL
from opentelemetry.sdk.trace.export import SpanExporter

from .errors import BadEndpoint, MissingExporter


@dataclass(frozen=True, slots=True)
class Protocol:
    """A way to send spans, and the package that does it."""

    name: str
    module: str
    logger: str
    """Where it logs its retries."""
    extra: str
    others: int
    """The port at which the other protocol usually is."""

    def exporter(self, **options: Any) -> SpanExporter:
        """One of the package's exporters; raises `MissingExporter` if it is not installed."""
        try:
            module = import_module(self.module)
        except ImportError as error:
            raise MissingExporter(self.name, self.extra) from error
        made: SpanExporter = module.OTLPSpanExporter(**options)
        return made

    def where(self, exporter: SpanExporter) -> str:
        """The address it sends to, without any password."""
        said = str(getattr(exporter, "_endpoint", "the address in OTEL_EXPORTER_OTLP_ENDPOINT"))
        start, slashes, rest = said.rpartition("//")
        return f"{start}{slashes}{rest.rpartition('@')[2]}"

    def hint(self, where: str) -> str:
        """What is usually wrong with such an address."""
        usual = f":{self.others}" in where
        return f" Port {self.others} is usually {_OTHER[self.name]}." if usual else ""


HTTP = Protocol(
    "HTTP",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "otlp",
    4317,
)
GRPC = Protocol(
    "gRPC",
    "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "otlp-grpc",
    4318,
)


def exporter(to: bool | str) -> tuple[SpanExporter, Protocol]:
    """An exporter to this URL, or for True to where the standard variables say.

    A URL's scheme says the protocol: `http` and `https` are OTLP over HTTP, `grpc` and `grpcs` OTLP over gRPC,
    without and with TLS. An HTTP address is a base, as OTEL_EXPORTER_OTLP_ENDPOINT is: `v1/traces` is put
    behind it unless it ends so already. All else (headers, certificates, timeouts, compression) the exporters
    read from OTEL_EXPORTER_OTLP_*. Without a URL the addresses are read there too, and the protocol from
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL or OTEL_EXPORTER_OTLP_PROTOCOL, HTTP if neither is set. Raises
    `BadEndpoint`, also for what is neither True nor text, and `MissingExporter`.
    """
    if to is True:
        protocol = _told()
        return protocol.exporter(), protocol
    url = _split(to)
    if url.scheme in ("http", "https"):
        return HTTP.exporter(endpoint=_whole(url)), HTTP
    plain = url.scheme == "grpc"
    netloc = url.netloc if url.port is not None else f"{url.netloc}:4317"
    return GRPC.exporter(endpoint=f"{'http' if plain else 'https'}://{netloc}", insecure=plain), GRPC


def _split(to: object) -> SplitResult:
    if not isinstance(to, str):
        raise BadEndpoint(to, f"it is of type {type(to).__name__}")
    if not to:
        raise BadEndpoint(to, "it is empty; say True for where the OTEL_EXPORTER_OTLP_* variables say")
    if " " in to or not to.isprintable():  # urlsplit drops some of them without a word
        raise BadEndpoint(to, "an address has no spaces or control characters in it")
    try:
        url = urlsplit(to)
        _ = url.port  # raises for one that is no number
    except ValueError as error:
        raise BadEndpoint(to, str(error)) from error
    if url.scheme not in ("http", "https", "grpc", "grpcs") or not url.hostname:
        raise BadEndpoint(to, "it is none of these")
    if url.scheme.startswith("grpc") and url.path not in ("", "/"):
        raise BadEndpoint(to, f"gRPC has no path {url.path}")
    return url


def _whole(url: SplitResult) -> str:
    path = url.path.rstrip("/")
    return urlunsplit(url._replace(path=path if path.endswith("/v1/traces") else f"{path}/v1/traces"))


def _told() -> Protocol:
    """What the standard variables say."""
    for variable in (OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, OTEL_EXPORTER_OTLP_PROTOCOL):
        match os.environ.get(variable, "").strip().lower():
            case "":
                continue
            case "grpc":
                return GRPC
            case "http/protobuf":
                return HTTP
            case other:
                raise BadEndpoint(f"{variable}={other}", "of the protocols, `grpc` and `http/protobuf` are known")
    return HTTP


_OTHER = {"HTTP": "OTLP over gRPC: grpc://HOST:4317", "gRPC": "OTLP over HTTP: http://HOST:4318"}
