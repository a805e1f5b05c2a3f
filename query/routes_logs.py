"""The routes that read records: those of the two seed services, and ours."""

import asyncio
import json
import time
from collections.abc import Sequence, Set
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from logagg.protocols.record import NOTE
from logagg.query import misspelt
from logagg.query.answers import Filter, Pattern, Stats
from logagg.query.engine import Engine
from logagg.query.grants import grant_of
from logagg.query.hangup import while_wanted
from logagg.query.http import Route, reply
from logagg.query.kinds import ago
from logagg.query.models import (
    AggregationsQuery,
    Asked,
    ContextAnswer,
    ContextQuery,
    Count,
    Filters,
    HistogramAnswer,
    HistogramQuery,
    LogRecord,
    LogsQuery,
    Parameters,
    PatternAnswer,
    PatternsQuery,
    SearchAnswer,
    SearchBody,
    SearchQuery,
)
from logagg.query.patterns import member_lines

_REFUSALS = {400: "An argument that makes no sense.", 503: "A limit of the query, or the store is away; says which."}
_NO_RECORD = {404: "There is no such record."}
_RECORD = "/logs/{id:[0-9]+}"
#: An id is below 2**53.
_MOST_DIGITS = 16
_SERIOUS = "level>=error"
_ENTRY = ("timestamp", "level", "message", "source", "service", "trace_id", "span_id", "metadata")
_BESIDES = ("id", "host", "environment", "received_at")
#: Seconds that a client may take to read what fills its buffers.
_STALL = 60.0
#: Damages that a header names.
_NAMED = 10


def log_routes(engine: Engine) -> Sequence[Route[Any, Any]]:
    """Return the routes that read records from the engine."""
    logs = _Logs(engine)
    tag, scope = "reading", "query"
    routes: Sequence[Route[Any, Any]] = [
        Route(
            "GET", "/logs", "Records, newest first; a Link header leads to the next page", tag, logs.list,
            query=LogsQuery, response=list[LogRecord], statuses=_REFUSALS, scope=scope,
        ),
        Route(
            "GET", "/logs/search", "A page of records and how many there are", tag, logs.search_by_url,
            query=SearchQuery, response=SearchAnswer, statuses=_REFUSALS, scope=scope,
        ),
        Route(
            "POST", "/logs/search", "A page of records and how many there are", tag, logs.search_by_body,
            query=Parameters, body=SearchBody, response=SearchAnswer, statuses=_REFUSALS, scope=scope,
        ),
        Route(
            "GET", "/logs/aggregations", "How many records, by any columns, most first", tag, logs.aggregations,
            query=AggregationsQuery, response=list[Count], statuses=_REFUSALS, scope=scope,
        ),
        Route(
            "GET", "/logs/histogram", "How many records of each level over time", tag, logs.histogram,
            query=HistogramQuery, response=HistogramAnswer, statuses=_REFUSALS, scope=scope,
        ),
        Route(
            "GET", "/logs/patterns", "Templates of messages, most frequent first: of ERROR and worse, unless q, level,"
            " search, start_time or end_time ask otherwise", tag, logs.patterns,
            query=PatternsQuery, response=list[PatternAnswer], statuses=_REFUSALS, scope=scope,
        ),
        Route(
            "GET", "/logs/patterns/members", "Which record is of which pattern: an object with id and pattern a line,"
            " newest first, of all levels and times unless filtered; a last line says what is incomplete, if any is",
            tag, logs.members, query=Filters, produces=["application/x-ndjson"], statuses=_REFUSALS, scope=scope,
        ),
        Route(
            "GET", _RECORD, "The record with this id", tag, logs.record,
            query=Parameters, response=LogRecord, statuses=_REFUSALS | _NO_RECORD, scope=scope,
        ),
        Route(
            "GET", f"{_RECORD}/context", "A record, and those before and after it of the same host, service and source",
            tag, logs.context, query=ContextQuery, response=ContextAnswer, statuses=_REFUSALS | _NO_RECORD, scope=scope,
        ),
    ]  # fmt: skip
    return [replace(route, handler=while_wanted(route.handler)) for route in routes]


def to_filter(request: web.Request, asked: Filters, **changes: Any) -> Filter:
    """Return what the engine takes for the filters of a request, within what it may read."""
    words = " ".join(filter(None, (asked.search, getattr(asked, "query", None))))
    given = {
        "start": asked.start_time,
        "end": asked.end_time,
        "q": asked.q,
        "level": asked.level and asked.level.value,
        "service": asked.service,
        "host": asked.host,
        "environment": asked.environment,
        "source": asked.source,
        "words": words or None,
        "only": grant_of(request).only,
    }
    return Filter(**(given | changes))


class _Logs:
    """The handlers; each asks the engine one question."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list(self, request: web.Request, query: LogsQuery, body: None) -> web.Response:
        found = await self._engine.search(
            to_filter(request, query), limit=query.limit, cursor=query.cursor, order=query.order
        )
        headers = _next(request, found.cursor) | _headers(query, found.stats)
        return reply(found.records, headers=headers | await hint_of(query.q, found.records or query.cursor))

    async def record(self, request: web.Request, query: Parameters, body: None) -> web.Response:
        found = await self._engine.record(_id(request))
        if found is None or not grant_of(request).holds(found):
            raise _no_record(request)
        return reply(found)

    async def context(self, request: web.Request, query: ContextQuery, body: None) -> web.Response:
        grant = grant_of(request)
        found = await self._engine.context(_id(request), before=query.before, after=query.after, only=grant.only)
        if found is None or not grant.holds(found.record):
            raise _no_record(request)
        answer = {"before": found.before, "record": found.record, "after": found.after}
        return reply(answer | _besides(query, found.stats), headers=_headers(query, found.stats))

    async def search_by_url(self, request: web.Request, query: SearchQuery, body: None) -> web.Response:
        return await self._search(request, query)

    async def search_by_body(self, request: web.Request, query: Parameters, body: SearchBody) -> web.Response:
        return await self._search(request, body)

    async def _search(self, request: web.Request, asked: SearchQuery | SearchBody) -> web.Response:
        began = time.perf_counter()
        found = await self._engine.search(to_filter(request, asked), limit=asked.limit, offset=asked.offset, count=True)
        logs = [_entry(record) for record in found.records]
        took = round((time.perf_counter() - began) * 1000, 3)
        answer = {"logs": logs, "total_count": found.total, "took_ms": took}
        headers = _headers(asked, found.stats) | await hint_of(asked.q, found.total)
        return reply(answer | _besides(asked, found.stats), headers=headers)

    async def aggregations(self, request: web.Request, query: AggregationsQuery, body: None) -> web.Response:
        found = await self._engine.aggregate(
            to_filter(request, query), query.names, query.of, interval=query.interval, limit=query.limit
        )
        empty = {name for name in query.names if all(row[name] is None for row in found.rows)}
        return reply(found.rows, headers=_headers(query, found.stats) | await hint_of(query.q, found.rows, empty))

    async def histogram(self, request: web.Request, query: HistogramQuery, body: None) -> web.Response:
        found = await self._engine.histogram(to_filter(request, query), interval=query.interval)
        bins = [{"start": each.start, "total": each.count, "levels": each.levels} for each in found.bins]
        end = found.bins[-1].start + found.interval if found.bins else None
        return reply(
            {
                "start": found.bins[0].start if found.bins else None,
                "end": end,
                "interval_seconds": found.interval.total_seconds(),
                "total": found.total,
                "before": found.before,
                "after": found.after,
                "bins": bins,
            }
            | _besides(query, found.stats),
            headers=_headers(query, found.stats) | await hint_of(query.q, found.total),
        )

    async def patterns(self, request: web.Request, query: PatternsQuery, body: None) -> web.Response:
        end = query.end_time or datetime.now(UTC)
        since = query.since(end)
        found = await self._engine.patterns(_window(request, query, end), limit=query.limit, new_since=since)
        left_out = [f"only the newest {found.messages} messages were looked at"] if found.cut else []
        answer = [_pattern(each, compared=since is not None) for each in found.patterns]
        headers = _headers(query, found.stats, left_out) | await hint_of(query.q, answer)
        return reply(answer, headers=headers)

    async def members(self, request: web.Request, query: Filters, body: None) -> web.StreamResponse:
        found = await self._engine.members(to_filter(request, query))
        response = web.StreamResponse(headers=_headers(query, found.stats))
        response.content_type = "application/x-ndjson"
        await response.prepare(request)
        try:
            for lines in member_lines(found) if request.method == "GET" else ():
                async with asyncio.timeout(_STALL):
                    await response.write(lines)
            await response.write_eof()
        except (ConnectionError, TimeoutError):  # it is not read to its end: no last chunk says that it is whole
            if request.transport is not None:
                request.transport.close()
        return response


def _id(request: web.Request) -> int:
    digits = request.match_info["id"]
    if len(digits) > _MOST_DIGITS:
        raise _no_record(request)
    return int(digits)


def _no_record(request: web.Request) -> web.HTTPNotFound:
    return web.HTTPNotFound(reason=f"There is no record {request.match_info['id'][:100]}")


def _headers(asked: Asked, stats: Stats, left_out: Sequence[str] = ()) -> dict[str, str]:
    """Return what the headers say of an answer: what it cost, if asked for, and what is missing from it."""
    headers = {"X-Logagg-Stats": json.dumps(stats.as_dict())} if asked.stats else {}
    if missing := [*left_out, *stats.damaged[:_NAMED]]:
        headers["X-Logagg-Incomplete"] = _ascii("; ".join(missing))
    return headers


async def hint_of(q: str | None, found: object, empty: Set[str] = frozenset()) -> dict[str, str]:
    """Return the header for names that read like a column: those in a query that found nothing, those with no value."""
    wanted = await asyncio.to_thread(misspelt.fields_of, q) if q and not found else set()
    hint = misspelt.hint_on(empty | wanted)
    return {"X-Logagg-Hint": _ascii(hint)} if hint else {}


def _ascii(text: str) -> str:
    """Return a text as a header can hold it."""
    return json.dumps(text)[1:-1]


def _besides(asked: Asked, stats: Stats) -> dict[str, Any]:
    """Return the same for an answer that is an object."""
    said: dict[str, Any] = {"stats": stats.as_dict()} if asked.stats else {}
    return said | ({"incomplete": stats.damaged} if stats.damaged else {})


def _next(request: web.Request, cursor: str | None) -> dict[str, str]:
    if cursor is None:
        return {}
    url = request.rel_url.update_query(cursor=cursor)
    # Put together by hand: yarl refuses some of the Host headers that clients send.
    return {"Link": f'<{request.scheme}://{request.host}{url}>; rel="next"'}


def _entry(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record in the shape of seed 2, all its keys first."""
    shown = record | {"metadata": _metadata(record["attributes"])}
    return {key: shown[key] for key in _ENTRY + _BESIDES}


def _metadata(attributes: dict[str, Any]) -> dict[str, Any] | None:
    """Return what was sent as metadata as it was; the attributes of any other sender as they are."""
    sent = attributes.get("metadata")
    if isinstance(sent, dict) and attributes.keys() <= {"metadata", NOTE}:
        return sent
    return attributes or None


def _window(request: web.Request, query: PatternsQuery, end: datetime) -> Filter:
    """Return the filter of a question for patterns: by default, ERROR and worse of the last hours."""
    start = query.start_time or ago(end, timedelta(hours=query.hours))
    widened = query.q or query.search or query.level or query.start_time or query.end_time
    return to_filter(request, query, start=start, q=query.q if widened else _SERIOUS)


def _pattern(found: Pattern, *, compared: bool) -> dict[str, Any]:
    shown = {
        "pattern": found.template,
        "count": found.count,
        "first_seen": found.first_seen,
        "last_seen": found.last_seen,
        "services": found.services,
        "example": found.example,
        "levels": found.levels,
    }
    return shown | ({"new": found.new, "before": found.before, "growth": found.growth} if compared else {})
