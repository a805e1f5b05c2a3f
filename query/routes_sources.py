"""`GET /sources`: who sends; and `DELETE /sources`, for who will not send any more."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from aiohttp import web
from pydantic import BaseModel, Field

from logagg.query.grants import grant_of
from logagg.query.http import Route, reply
from logagg.query.kinds import Interval
from logagg.query.models import Parameters
from logagg.sinks.sources import CANARY, Sources


class NamesQuery(Parameters):
    """`DELETE /sources`: which."""

    host: str | None = Field(None, description="Exactly this host; empty: those without.")
    service: str | None = Field(None, description="Exactly this service; empty: those without.")
    environment: str | None = Field(None, description="Exactly this environment; empty: those without.")
    transport: str | None = Field(None, description="Exactly this listener, such as `syslog-udp`.")


class SourcesQuery(NamesQuery):
    """`GET /sources`."""

    silent: bool = Field(False, description="Only those that are silent for longer than is usual of them.")
    silent_for: Interval | None = Field(None, description="Only those that are silent for so long, as `silent` or not.")


class SourceAnswer(BaseModel):
    """Who sends. Times are those of receipt, spans are seconds."""

    host: str | None
    service: str | None = Field(description="`(others)` for those that are too many to be told one by one.")
    environment: str | None
    transport: str
    first_seen: datetime
    last_seen: datetime
    records: int
    bytes: int = Field(description="As received, shared out evenly among the records that came together.")
    rate: float = Field(description="Records a second, over some five minutes.")
    clock_skew: float = Field(description="Receipt minus timestamp: how late records come, or how slow their clock is.")
    usual_interval: float | None = Field(description="Usual pause between two lots of records; null: there was none.")
    gaps: int = Field(description="Silences that ended.")
    longest_gap: float | None = Field(description="The longest of them.")
    silence: float = Field(description="Since `last_seen`.")
    silent: bool = Field(
        description="Longer than a minute, and than ten times the usual interval, of a source that was seen in ten"
        " minutes or more; never the canary."
    )


class ForgottenAnswer(BaseModel):
    """What became of it."""

    forgotten: int = Field(description="How many sources were forgotten. One that sends again comes again.")


def source_routes(sources: Sources) -> Sequence[Route[Any, Any]]:
    """Return the routes of sources."""

    async def answer(request: web.Request, query: SourcesQuery, body: None) -> web.Response:
        grant = grant_of(request)
        given = query.model_dump(include=set(NamesQuery.model_fields), exclude_none=True)
        found = [
            source
            for source in [each._asdict() for each in await sources.all()]
            if grant.holds(source)
            and all((source[name] or "") == value for name, value in given.items())
            and (source["silent"] or not query.silent)
            and (query.silent_for is None or _silent_for(source, query.silent_for))
        ]
        return reply(found)

    async def forget(request: web.Request, query: NamesQuery, body: None) -> web.Response:
        given = query.model_dump()
        if not any(value is not None for value in given.values()):
            raise web.HTTPBadRequest(reason="say which sources: host, service, environment or transport")
        return reply({"forgotten": await sources.forget(**given)})

    return [
        Route(
            "GET", "/sources", "Who sends: hosts, services and listeners, those with most records first", "reading",
            answer, query=SourcesQuery, response=list[SourceAnswer], scope="query",
        ),
        Route(
            "DELETE", "/sources", "Forget sources that will not send any more; their records stay", "service", forget,
            query=NamesQuery, response=ForgottenAnswer, statuses={400: "No name is given."}, scope="admin",
        ),
    ]  # fmt: skip


def _silent_for(source: Mapping[str, Any], span: timedelta) -> bool:
    return bool(source["service"] != CANARY and source["silence"] >= span.total_seconds())
