"""`GET /logs/tail`: matching records as they are committed, as server-sent events."""

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from aiohttp import web
from pydantic import Field

from logagg.query.grants import let_in
from logagg.query.http import Route
from logagg.query.models import Filters
from logagg.query.routes_logs import hint_of, to_filter
from logagg.query.tail import MAX_BACKLOG, Tails

#: Seconds that a client may take to read what fills its buffers.
_STALL = 600.0
SCOPE = "query"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nginx would gather what is to come at once

log = structlog.get_logger(__name__)


class TailQuery(Filters):
    """`GET /logs/tail`."""

    backlog: int = Field(0, ge=0, le=MAX_BACKLOG, description="Begin with so many of the newest, the oldest first.")
    last_event_id: str | None = Field(
        None, description="Go on behind the event with this id, as with the header Last-Event-ID; without a backlog."
    )


def tail_routes(tails: Tails) -> Sequence[Route[Any, Any]]:
    """Return the route of live tails."""
    return [
        Route(
            "GET", "/logs/tail", "Records as they are committed: server-sent events, which go on behind Last-Event-ID",
            "reading", _Tail(tails).tail, query=TailQuery, produces=["text/event-stream"],
            statuses={400: "An argument that makes no sense.", 503: "Too many tails."}, scope=SCOPE,
        )
    ]  # fmt: skip


class _Tail:
    """The handler."""

    def __init__(self, tails: Tails) -> None:
        self._tails = tails

    async def tail(self, request: web.Request, query: TailQuery, body: None) -> web.StreamResponse:
        response = web.StreamResponse(headers=_HEADERS)
        response.content_type = "text/event-stream"
        response.charset = "utf-8"
        if request.method == "HEAD":
            return response
        resume = request.headers.get("Last-Event-ID") or query.last_event_id or None
        try:
            async with self._tails.tail(to_filter(request, query), resume=resume, backlog=query.backlog) as events:
                response.headers.update(await hint_of(query.q, None))  # nothing was found yet, and it may stay so
                await response.prepare(request)
                async for data in events:
                    let_in(request, SCOPE)  # a token may be revoked meanwhile
                    await _write(request, response, data)
        except web.HTTPUnauthorized:
            log.debug("a tail has ended", reason="its token was revoked")
        except (ConnectionError, TimeoutError) as error:
            log.debug("a tail has ended", reason=str(error) or type(error).__name__)
            if request.transport is not None:
                request.transport.abort()  # what a slow reader has not taken would be waited for
        return response


async def _write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    if request.transport is None or request.transport.is_closing():
        message = "the client has gone"
        raise ConnectionResetError(message)
    if data:
        async with asyncio.timeout(_STALL):
            await response.write(data)
