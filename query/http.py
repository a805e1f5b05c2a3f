"""HTTP, as tables of routes: one `Route` gives the handler, the checks of what comes in, and the OpenAPI document.

Refusals are JSON, in the form of FastAPI, which both seed services are built on:

- 422 `{"detail": [{"type", "loc", "msg", "input", "ctx"}]}` for a parameter or body that does not fit its model, and
  for a `q` of wrong syntax;
- any other status `{"detail": "text"}`: 400 values that fit, but cannot be asked for, 404, 405 with Allow, 413, 500
  without any inner detail, and 503 with Retry-After when a limit of the query ended it (the text says which) or the
  store is away.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar, cast

import orjson
import structlog
from aiohttp import web
from pydantic import BaseModel, TypeAdapter, ValidationError

from logagg.protocols import jsontext
from logagg.query.bodies import BODIES
from logagg.query.errors import QueryError, QueryLimit
from logagg.query.grants import ANY, let_in
from logagg.sinks.errors import StoreUnavailable

Query = TypeVar("Query")
Body = TypeVar("Body")

#: Seconds after which a client may ask again, when a limit or the store said no.
RETRY_AFTER = "5"
#: Where a request keeps its body as it came, if something in it had to be replaced (see `protocols.jsontext`).
RAW = web.RequestKey("RAW", bytes)
#: Headers of a refusal that are kept when it is written as JSON.
_KEPT = ("Allow", "Retry-After", "WWW-Authenticate")

log = structlog.get_logger(__name__)


class Unfit(Exception):
    """A request that does not fit its model: the `detail` list of a 422."""

    def __init__(self, detail: list[dict[str, Any]]) -> None:
        super().__init__(detail)
        self.detail = detail


@dataclass(frozen=True)
class Route(Generic[Query, Body]):
    """One method of one path. A GET answers HEAD too.

    The handler gets the request, the checked query and the checked body; each is None where the route has no model for
    it. A handler that reads the body by itself says in `consumes` what it takes, for the document.
    """

    method: str
    #: As aiohttp writes it: `/{index}/_bulk`.
    path: str
    summary: str
    tag: str
    handler: Callable[[web.Request, Query, Body], Awaitable[web.StreamResponse]]
    query: type[Query] | None = None
    #: A pydantic model or a list of them, taken from a JSON body of whatever content type.
    body: type[Body] | None = None
    #: The type of the JSON answer with status 200; documents it, nothing more.
    response: Any = None
    #: Media types of an answer that is not JSON.
    produces: Sequence[str] = ()
    #: Media types of a body that has no model.
    consumes: Sequence[str] = ()
    #: Further statuses with a `detail`, and what they mean.
    statuses: Mapping[int, str] = field(default_factory=dict)
    #: Further statuses whose answer has the form of `response`, and what they mean.
    also: Mapping[int, str] = field(default_factory=dict)
    #: Left out of the document: pages for people.
    hidden: bool = False
    #: What a token must be for: a scope of `sinks.tokens`, `grants.ANY` or `grants.OPEN`.
    scope: str = ANY
    #: Says no to who is not let in, in a form of its own; by default as all refusals are.
    refuse: Callable[[web.Request, web.HTTPException], web.Response] | None = None

    @cached_property
    def query_adapter(self) -> TypeAdapter[Query] | None:
        """What checks the query."""
        return TypeAdapter(self.query) if self.query else None

    @cached_property
    def body_adapter(self) -> TypeAdapter[Body] | None:
        """What checks the body."""
        return TypeAdapter(self.body) if self.body else None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Check the request, and answer it. Raises Unfit, and what the handler raises."""
        try:
            let_in(request, self.scope)
        except web.HTTPException as error:
            if self.refuse:
                return self.refuse(request, error)
            raise
        # Of a parameter given twice the last counts, as in FastAPI.
        asked = {name: value for name, value in request.query.items()}  # noqa: C416  # dict() would take the first
        query = check(self.query_adapter, asked, "query") if self.query_adapter else None
        body = await self._checked_body(request) if self.body_adapter else None
        return await self.handler(request, cast("Query", query), cast("Body", body))

    async def _checked_body(self, request: web.Request) -> Body:
        def checked(data: bytes) -> tuple[Body, bytes | None]:
            if not data:
                raise Unfit([{"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}])
            loaded = _parse(data)
            body = check(cast("TypeAdapter[Body]", self.body_adapter), loaded.value, "body")
            return body, data if loaded.replaced else None

        body, raw = await request.app[BODIES].decode(request, checked)
        if raw:
            request[RAW] = raw
        return body


def make_app(routes: Sequence[Route[Any, Any]]) -> web.Application:
    """Return an application of these routes.

    Set its `BODIES`, which read and decompress the bodies, and serve it with `auto_decompress=False`.
    """
    app = web.Application(middlewares=[_refusals])
    app.on_response_prepare.append(_harden)
    for route in routes:
        app.router.add_route(route.method, route.path, route.answer)
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, route.answer)
    return app


T = TypeVar("T")


def check(adapter: TypeAdapter[T], value: object, where: str) -> T:
    """Return the value as the adapter makes it. Raises Unfit, with `where` before each place."""
    try:
        return adapter.validate_python(value, from_attributes=True)  # so that errors read as FastAPI's do
    except ValidationError as error:
        raise Unfit([_problem(each, where) for each in error.errors(include_url=False)]) from None


def _problem(error: Any, where: str) -> dict[str, Any]:
    problem = {**error, "loc": [where, *error["loc"]]}
    if "ctx" in error:  # an exception in it has no JSON form; FastAPI writes {}
        problem["ctx"] = {key: {} if isinstance(value, Exception) else value for key, value in error["ctx"].items()}
    return problem


def _parse(body: bytes) -> jsontext.Loaded:
    try:
        return jsontext.loads(body)
    except ValueError:
        pass
    try:  # Python's own parser, for its errors are those that FastAPI gives
        return jsontext.Loaded(json.loads(body.decode(errors="replace")), True)
    except json.JSONDecodeError as error:
        problem = {"type": "json_invalid", "loc": ["body", error.pos], "msg": "JSON decode error", "input": {}}
        raise Unfit([problem | {"ctx": {"error": error.msg}}]) from None
    except (ValueError, RecursionError):
        raise web.HTTPBadRequest(reason="There was an error parsing the body") from None


def dumps(value: object) -> bytes:
    """Return the value as JSON; times are UTC with Z."""
    try:
        return orjson.dumps(value, option=orjson.OPT_UTC_Z)
    except TypeError:  # integers above 64 bits, lone surrogates, more than 254 levels of depth
        return json.dumps(value, default=_plain).encode()


def _plain(value: Any) -> object:
    """Return for json what only orjson knows: times, pydantic models, enums."""
    return (
        value.model_dump()
        if isinstance(value, BaseModel)
        else orjson.loads(orjson.dumps(value, option=orjson.OPT_UTC_Z))
    )


def reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return the value as a JSON answer."""
    return web.Response(body=dumps(value), status=status, headers=headers, content_type="application/json")


def refuse(detail: object, status: int, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a refusal: `{"detail": ...}`."""
    return reply({"detail": detail}, status, headers)


@web.middleware
async def _refusals(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn what a handler raises into the refusals that the module's docstring lists."""
    try:
        if request.match_info.http_exception:
            let_in(request, ANY)  # who is not let in does not learn what there is
        return await handler(request)
    except Unfit as error:
        return refuse(error.detail, 422)
    except QueryError as error:
        return _wrong(request, error)
    except (QueryLimit, StoreUnavailable) as error:
        return refuse(str(error), 503, {"Retry-After": RETRY_AFTER})
    except web.HTTPException as error:
        if error.status < 400:
            raise
        kept = {name: error.headers[name] for name in _KEPT if name in error.headers}
        return refuse(error.text if error.status == 413 else error.reason, error.status, kept)
    except Exception:
        log.exception("request failed", method=request.method, path=request.path)
        return refuse("Internal Server Error", 500)


def _wrong(request: web.Request, error: QueryError) -> web.Response:
    """Refuse a wrong question: bad syntax is a `q` that does not fit, any other argument a text."""
    if error.position is None:
        return refuse(str(error), 400)
    where = "body" if request.method == "POST" else "query"
    problem = {"type": "query_syntax", "loc": [where, "q"], "msg": str(error), "input": request.query.get("q")}
    return refuse([problem | {"ctx": {"position": error.position, "error": error.problem}}], 422)


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "logagg"
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "no-referrer")


def preferred(accept: str, offers: Sequence[str]) -> str:
    """Return the offer that an Accept header (RFC 9110, 12.5.1) likes best; of equals, and of none liked, the first."""
    return max(offers, key=lambda offer: _quality(accept or "*/*", offer))


def _quality(accept: str, offer: str) -> float:
    kind = offer.partition("/")[0]
    ranks = {offer: 2, f"{kind}/*": 1, "*/*": 0}
    found = [(ranks[name], quality) for name, quality in map(_accepted, accept.split(",")) if name in ranks]
    return max(found)[1] if found else 0.0


def _accepted(part: str) -> tuple[str, float]:
    name, *parameters = part.lower().split(";")
    weight = re.search(r"(?:^|;)\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*(?:$|;)", ";".join(parameters))
    return name.strip(), float(weight[1]) if weight else 1.0
