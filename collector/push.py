"""The routes of the protocols over HTTP: read, take, store, and answer as the sender expects.

Whatever goes wrong is said in the protocol's own form: its senders read no other.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from logagg.collector.ingest import idempotency_key
from logagg.collector.intake import Intake
from logagg.collector.limits import source_of
from logagg.protocols.http import Answer, HttpProtocol, Malformed, Request, Taken
from logagg.protocols.record import Origin
from logagg.query.bodies import BODIES
from logagg.query.grants import grant_of
from logagg.query.http import RETRY_AFTER, Route
from logagg.sinks.errors import StoreUnavailable


def push_routes(
    protocols: Sequence[HttpProtocol], intake: Intake, environment: str | None
) -> Sequence[Route[Any, Any]]:
    """Return the routes of all these protocols; records that name no environment get the one given."""
    routes: list[Route[Any, Any]] = []
    for protocol in protocols:
        push = _Push(protocol, intake, environment)
        routes += [
            Route(method, path, summary, "ingest", push.take, scope="ingest", refuse=push.refuse)
            for method, path, summary in protocol.routes
        ]
        routes += [
            Route(method, path, "", "", push.asked(answer), hidden=True, refuse=push.refuse)
            for (method, path), answer in protocol.ask.items()
        ]
    return routes


def greeting(
    route: Route[Any, Any], client: Callable[[Mapping[str, str]], bool], answer: Callable[[Request], Answer]
) -> Route[Any, Any]:
    """Return the route with another answer for the clients of a protocol, told by their headers."""

    async def greet(request: web.Request, query: Any, body: Any) -> web.StreamResponse:
        headers = _headers(request)
        if not client(headers):
            return await route.handler(request, query, body)
        return _response(answer(_asked(request, headers, b"")))

    return replace(route, handler=greet)


class _Push:
    """The handlers of one protocol."""

    def __init__(self, protocol: HttpProtocol, intake: Intake, environment: str | None) -> None:
        self._protocol = protocol
        self._intake = intake
        self._environment = environment

    async def take(self, request: web.Request, _: None, __: None) -> web.Response:
        """Store what a request brings; answer when it is durable."""
        return await self._answered(request, self._stored)

    def asked(self, answer: Callable[[Request], Answer]) -> Callable[..., Any]:
        """Return the handler of a question that brings no records."""

        async def told(request: web.Request, headers: Mapping[str, str]) -> Answer:
            return await request.app[BODIES].decode(request, lambda body: answer(_asked(request, headers, body)))

        async def handle(request: web.Request, _: None, __: None) -> web.Response:
            return await self._answered(request, told)

        return handle

    async def _answered(
        self, request: web.Request, answered: Callable[[web.Request, Mapping[str, str]], Awaitable[Answer]]
    ) -> web.Response:
        """Answer; a refusal has the form of the protocol."""
        headers = _headers(request)
        try:
            answer = await answered(request, headers)
        except Malformed as error:
            answer = self._protocol.refuse(400, str(error), headers)
        except StoreUnavailable as error:
            answer = self._protocol.refuse(503, str(error), headers)
            answer = answer._replace(headers={**answer.headers, "Retry-After": RETRY_AFTER})
        except web.HTTPException as error:
            return self.refuse(request, error)
        return _response(answer)

    def refuse(self, request: web.Request, error: web.HTTPException) -> web.Response:
        """Say no in the form of the protocol."""
        why = error.text if error.status == 413 else error.reason
        response = _response(self._protocol.refuse(error.status, why or "", _headers(request)))
        for name in ("WWW-Authenticate", "Retry-After"):
            if name in error.headers:
                response.headers[name] = error.headers[name]
        return response

    async def _stored(self, request: web.Request, headers: Mapping[str, str]) -> Answer:
        transport = self._protocol.transport
        origin = Origin(datetime.now(UTC), transport, request.remote or "", self._environment)

        def take(body: bytes) -> tuple[Taken, int]:
            return self._protocol.take(_asked(request, headers, body), origin), len(body)

        taken, size = await request.app[BODIES].decode(request, take)
        decoded = self._intake.within(taken.decoded, grant_of(request), request.remote or "")
        key = idempotency_key(request)
        await self._intake.store(transport, decoded, size, key, source=source_of(request))
        return taken.answer


def _headers(request: web.Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _asked(request: web.Request, headers: Mapping[str, str], body: bytes) -> Request:
    query = {name: value for name, value in request.query.items()}  # noqa: C416  # dict() would take the first of two
    return Request(request.method, request.path, query, headers, body, request.app[BODIES].limit)


def _response(answer: Answer) -> web.Response:
    response = web.Response(body=answer.body, status=answer.status, headers=answer.headers)
    response.headers["Content-Type"] = answer.content_type
    return response
