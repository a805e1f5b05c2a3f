"""Traces of the daemon by OpenTelemetry, exported by OTLP over HTTP: the extra `otel`, imported when it is set.

A span is of a request or a batch, never of a record. One trace shows a request, from the span on that its `traceparent`
names:

    POST /ingest    decode    the body, decompressed and decoded
                    flush     what became of some chunks, tries that failed and the journal included
                              COPY    one transaction
    GET /logs       query     one question

Of a flush that brings the records of several requests the first is the parent; the others are links.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from typing import TypeGuard

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from logagg.collector.buffer import SPAN, Chunk
from logagg.collector.flusher import Flusher
from logagg.query.bodies import BODIES
from logagg.query.engine import Engine

#: Seconds that the receiver has to take spans; at the end the daemon waits for it.
_PATIENCE = 5
_SERVER_ERROR = 500


def trace(endpoint: str, app: web.Application, engine: Engine, flusher: Flusher) -> Callable[[], Awaitable[None]]:
    """Make spans of what these do, from now on; return what ends that, once the last spans are sent.

    Spans that the receiver does not take are given up, and logged. Sampling, headers and more of a resource are set by
    OpenTelemetry's own variables, OTEL_TRACES_SAMPLER and others.
    """
    resource = Resource.create({"service.name": "logagg", "service.version": version("logagg")})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_PATIENCE)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("logagg", version("logagg"))

    app.middlewares.insert(0, _requests(tracer))
    app[BODIES].around = lambda size: tracer.start_as_current_span("decode", attributes={"size": size})
    engine.around = _questions(tracer, engine.around)
    flusher.around = _flushes(tracer)

    async def end() -> None:
        await asyncio.to_thread(provider.shutdown)

    return end


def _requests(tracer: Tracer) -> Middleware:
    propagator = TraceContextTextMapPropagator()

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = resource.canonical if resource else ""
        attributes = {"http.request.method": request.method, "http.route": route}
        with tracer.start_as_current_span(
            f"{request.method} {route}".rstrip(), propagator.extract(request.headers), SpanKind.SERVER, attributes
        ) as span:
            token = SPAN.set(span)
            try:
                response = await handler(request)
            finally:
                SPAN.reset(token)
            span.set_attribute("http.response.status_code", response.status)
            if response.status >= _SERVER_ERROR:
                span.set_status(StatusCode.ERROR)
            return response

    return middleware


def _questions(
    tracer: Tracer, measured: Callable[[str], AbstractContextManager[object]]
) -> Callable[[str], AbstractContextManager[object]]:
    @contextmanager
    def around(kind: str) -> Iterator[None]:
        with measured(kind), tracer.start_as_current_span("query", attributes={"kind": kind}):
            yield

    return around


def _flushes(tracer: Tracer) -> Callable[[str, Sequence[Chunk]], AbstractContextManager[object]]:
    def around(name: str, chunks: Sequence[Chunk]) -> AbstractContextManager[object]:
        attributes = {"records": sum(chunk.count for chunk in chunks), "chunks": len(chunks)}
        if name != "flush":
            return tracer.start_as_current_span(name, attributes=attributes)
        requests = list({id(chunk.span): chunk.span for chunk in chunks if _sampled(chunk.span)}.values())
        parent = set_span_in_context(requests[0]) if requests else None
        links = [Link(span.get_span_context()) for span in requests[1:]]
        return tracer.start_as_current_span(name, parent, attributes=attributes, links=links)

    return around


def _sampled(span: object) -> TypeGuard[Span]:
    return isinstance(span, Span) and span.get_span_context().trace_flags.sampled
