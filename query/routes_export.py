"""`GET /logs/export`: all records that match, streamed in chunks as they are read.

The answer is whole when its last chunk has come. What goes wrong before the first byte is refused as everywhere; after
that the connection is closed without a last chunk, which every HTTP client reports (curl ends with 18), and the reason
stands in the log.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import Any, Literal

import polars as pl
import structlog
from aiohttp import HttpVersion11, web
from pydantic import Field

from logagg.query.export import FORMS, Exporter, Form, slices
from logagg.query.http import Route
from logagg.query.models import Filters
from logagg.query.routes_logs import to_filter
from logagg.sinks.store import Store
from logagg.sinks.threads import read_in_thread

#: Seconds that a client may take to read what fills its buffers.
_STALL = 600.0
#: Bytes given to the connection at once; it takes no more before these are nearly gone.
_PIECE = 1 << 18

log = structlog.get_logger(__name__)


class ExportQuery(Filters):
    """`GET /logs/export`."""

    format: Literal["jsonl", "csv", "parquet"] = Field("jsonl", description="The form of the records.")


def export_routes(
    store: Store, around: Callable[[str], AbstractContextManager[object]] = lambda _: nullcontext()
) -> Sequence[Route[Any, Any]]:
    """Return the route that exports the records of a store; `around` is entered around each, as `Engine.around` is."""
    exports = _Export(Exporter(store))

    async def export(request: web.Request, query: ExportQuery, body: None) -> web.StreamResponse:
        with around("export"):
            return await exports.export(request, query, body)

    return [
        Route(
            "GET", "/logs/export", "All records that match, batch by batch, oldest batch first; a broken end is an"
            " export that is not whole", "reading", export,
            query=ExportQuery, produces=[form.media_type for form in FORMS.values()],
            statuses={400: "An argument that makes no sense.", 503: "Too many exports, or the store is away."},
            scope="query",
        )
    ]  # fmt: skip


class _Export:
    """The handler."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter

    async def export(self, request: web.Request, query: ExportQuery, body: None) -> web.StreamResponse:
        if request.version < HttpVersion11:  # has no chunks, so an end could not be told from a break
            raise web.HTTPVersionNotSupported(reason="An export needs HTTP/1.1")
        form = FORMS[query.format]()
        response = web.StreamResponse()
        response.content_type = form.media_type
        response.headers["Content-Disposition"] = f'attachment; filename="logagg.{query.format}"'
        if request.method == "HEAD":
            return response
        async with self._exporter.records(to_filter(request, query)) as frames:
            try:
                async with aclosing(_document(form, frames)) as document:
                    async for data in document:
                        if not response.prepared:
                            await response.prepare(request)
                        await _write(request, response, data)
                await response.write_eof()
            except (ConnectionError, TimeoutError) as error:
                log.info("an export was not read to its end", reason=str(error) or type(error).__name__)
                _break_off(request)
            except Exception as error:
                if not response.prepared:
                    raise
                log.error("an export was broken off", reason=str(error) or type(error).__name__)
                _break_off(request)
        return response


async def _document(form: Form, frames: AsyncIterator[pl.DataFrame]) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of the document, not before the first batch was read, and at least once a batch."""
    begin = form.begin()
    async for frame in frames:
        yield begin
        begin = b""
        for part in slices(frame):
            yield await read_in_thread(form.add, part)
    yield begin + await read_in_thread(form.end)


async def _write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    if request.transport is None or request.transport.is_closing():
        message = "the client has gone"
        raise ConnectionResetError(message)
    for start in range(0, len(data), _PIECE):
        async with asyncio.timeout(_STALL):
            await response.write(data[start : start + _PIECE])


def _break_off(request: web.Request) -> None:
    """Close the connection without a last chunk."""
    if request.transport is not None:
        request.transport.close()
