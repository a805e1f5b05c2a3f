"""`GET /sources`: who sends."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from aiohttp import web
from pydantic import BaseModel, Field

from logagg.query.grants import grant_of
from logagg.query.http import Route, reply
from logagg.query.kinds import Interval
from logagg.sinks.sources import Sources


class SourcesQuery(BaseModel):
    """`GET /sources`."""

    host: str | None = Field(None, description="Exactly this host.")
    service: str | None = Field(None, description="Exactly this service.")
    environment: str | None = Field(None, description="Exactly this environment.")
    transport: str | None = Field(None, description="Exactly this listener, such as `syslog-udp`.")
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
    silent: bool = Field(description="Longer than a minute, and than ten times the usual interval.")


def source_routes(sources: Sources) -> Sequence[Route[Any, Any]]:
    """Return the route of sources."""

    async def answer(request: web.Request, query: SourcesQuery, body: None) -> web.Response:
        grant = grant_of(request)
        given = query.model_dump(include={"host", "service", "environment", "transport"}, exclude_none=True)
        found = [
            source
            for source in [each._asdict() for each in await sources.all()]
            if grant.holds(source)
            and all(source[name] == value for name, value in given.items())
            and (source["silent"] or not query.silent)
            and (query.silent_for is None or source["silence"] >= query.silent_for.total_seconds())
        ]
        return reply(found)

    return [
        Route(
            "GET", "/sources", "Who sends: hosts, services and listeners, those with most records first", "reading",
            answer, query=SourcesQuery, response=list[SourceAnswer], scope="query",
        )
    ]  # fmt: skip
