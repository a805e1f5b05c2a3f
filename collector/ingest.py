"""The routes that take records over HTTP. An answer of 200 is sent after COMMIT."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain, repeat
from typing import Any, Literal
from uuid import UUID, uuid4

import polars as pl
from aiohttp import web
from pydantic import BaseModel, Field

from logagg.collector.intake import Intake
from logagg.collector.limits import source_of
from logagg.protocols import jsontext
from logagg.protocols.clean import clean_text
from logagg.protocols.columns import Columnar
from logagg.protocols.fluent import OTHER_TAG, decode_msgpack_body
from logagg.protocols.json_columns import decode_body
from logagg.protocols.mapping import from_object
from logagg.protocols.record import Decoded, Origin
from logagg.query.bodies import BODIES
from logagg.query.grants import grant_of
from logagg.query.http import RAW, Route, reply
from logagg.query.models import LogEntry, Seed1Log

TRANSPORT = "http"
#: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
KEY = "Idempotency-Key"
LONGEST_KEY = 1024
#: What fluent-bit and fluentd call msgpack.
MSGPACK = frozenset({"application/msgpack", "application/x-msgpack", "application/vnd.msgpack"})
#: The header that fluent-bit's documentation has its `http` output write a tag to, by `header_tag`.
TAG = "FLUENT-TAG"

#: What a sender may be told, and what it should do.
_STATUSES = {
    400: "The body cannot be read: not JSON at all, or not what its Content-Encoding says. Sending it again is no use.",
    408: "The body did not arrive in time.",
    413: "The body is longer than http_max_body.",
    503: "Nothing was stored, or the sender is over its limit; send it again after Retry-After seconds.",
}


class Taken(BaseModel):
    """Answer of `POST /logs`; more than seed 1 promised, for the log is stored."""

    status: Literal["Log queued successfully"]


class Queued(BaseModel):
    """Answer of seed 2; as above."""

    success: Literal[True]
    message: str
    correlation_id: UUID


class Stored(BaseModel):
    """Answer of `POST /ingest`."""

    accepted: int = Field(description="Records stored.")
    quarantined: int = Field(description="Parts of the body that are no record, kept in quarantine.")


def ingest_routes(intake: Intake, environment: str | None) -> Sequence[Route[Any, Any]]:
    """Return the routes; records that name no environment get the one given."""

    def origin(request: web.Request) -> Origin:
        return Origin(datetime.now(UTC), TRANSPORT, request.remote or "", environment)

    async def seed_1(request: web.Request, _: None, body: Seed1Log) -> web.Response:
        await store([body], request)
        return reply({"status": "Log queued successfully"})

    async def seed_2_one(request: web.Request, _: None, body: LogEntry) -> web.Response:
        await store([body], request)
        return _queued("Log entry queued for processing")

    async def seed_2_batch(request: web.Request, _: None, body: list[LogEntry]) -> web.Response:
        await store(body, request)
        return _queued(f"Batch of {len(body)} log entries queued for processing")

    async def store(logs: Sequence[Seed1Log | LogEntry], request: web.Request) -> None:
        came = origin(request)
        # A body in which something was replaced is kept whole, with the first of its records.
        raws = chain([request.get(RAW)], repeat(None))
        records = [from_object(log.as_object(), came, raw) for log, raw in zip(logs, raws, strict=False)]
        size = sum(len(record.message) + len(record.attributes or "") for record in records)
        decoded = intake.within(Decoded(records, []), grant_of(request), request.remote or "")
        await intake.store(TRANSPORT, decoded, size, idempotency_key(request), source=source_of(request))

    async def ingest(request: web.Request, _: None, __: None) -> web.Response:
        decode = decode_msgpack_body if request.content_type in MSGPACK else decode_body
        came, tag = origin(request), clean_text(request.headers.get(TAG, ""))

        def take(body: bytes) -> tuple[Decoded | Columnar, int]:
            decoded = decode(body, came)
            if not len(decoded.records) and (decoded.rejects or not body.strip()):
                why = decoded.rejects[0].reason if decoded.rejects else "it is empty"
                raise web.HTTPBadRequest(reason=f"no record in a body of {len(body)} bytes: {why}")
            return tagged(decoded, tag) if tag else decoded, len(body)

        decoded, size = await request.app[BODIES].decode(request, take)
        decoded = intake.within(decoded, grant_of(request), request.remote or "")
        await intake.store(TRANSPORT, decoded, size, idempotency_key(request), source=source_of(request))
        return reply({"accepted": len(decoded.records), "quarantined": len(decoded.rejects)})

    def route(path: str, summary: str, handler: Any, **more: Any) -> Route[Any, Any]:
        return Route("POST", path, summary, "ingest", handler, statuses=_STATUSES, scope="ingest", **more)

    batch = "Store many logs (seed 2)"
    return [
        route("/logs", "Store one log (seed 1)", seed_1, body=Seed1Log, response=Taken),
        route("/logs/ingest", "Store one log (seed 2)", seed_2_one, body=LogEntry, response=Queued),
        route("/logs/batch-ingest", batch, seed_2_batch, body=list[LogEntry], response=Queued),
        route(
            "/ingest",
            "Store a JSON array, JSON lines, or JSON objects one after the other; or Fluent's events in msgpack",
            ingest,
            response=Stored,
            consumes=("application/json", "application/x-ndjson", "application/msgpack"),
        ),
    ]


def tagged(decoded: Decoded | Columnar, tag: str) -> Decoded | Columnar:
    """Tell each record the tag of its body as Forward does: an attribute, and the service of those that name none."""
    value = jsontext.dumps(tag)

    def with_tag(attributes: str | None) -> str:
        rest = (attributes or "{}")[1:]
        name = OTHER_TAG if '"tag":' in rest else "tag"  # it may stand deeper, too: nothing is lost by the other name
        return f'{{"{name}":{value}{"" if rest == "}" else ","}{rest}'

    if isinstance(decoded, Columnar):
        frame = decoded.records
        attributes = pl.Series("attributes", map(with_tag, frame["attributes"].to_list()), dtype=pl.String)
        return Columnar(frame.with_columns(pl.col("service").fill_null(tag), attributes), decoded.rejects)
    records = [
        record._replace(service=record.service or tag, attributes=with_tag(record.attributes))
        for record in decoded.records
    ]
    return Decoded(records, decoded.rejects)


def idempotency_key(request: web.Request) -> str | None:
    """Return what the sender repeats when it sends the same body again. Raises HTTPBadRequest when it is too long.

    Senders with different tokens may use the same key for different bodies.
    """
    key = request.headers.get(KEY) or None
    if key and len(key) > LONGEST_KEY:
        raise web.HTTPBadRequest(reason=f"{KEY} of {len(key)} characters, at most {LONGEST_KEY}")
    token = grant_of(request).name
    return f"{token}\n{key}" if key and token else key


def _queued(message: str) -> web.Response:
    return reply({"success": True, "message": message, "correlation_id": str(uuid4())})
