"""The routes about the service itself: alive, healthy, ready, counted, documented; and the page for people."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder

from logagg.query.grants import OPEN
from logagg.query.http import Route, dumps, preferred, reply
from logagg.query.models import Alive, Health, Ready, Running
from logagg.query.openapi import document
from logagg.sinks.errors import StoreError
from logagg.sinks.store import Store

ASSETS = Path(__file__).with_name("assets")
#: Seconds that the store has to answer `/readyz`.
READY_TIMEOUT = 5.0
#: Nothing from anywhere else, nothing inline, and no text that becomes markup.
CONTENT_SECURITY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'self'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Status:
    """What the routes need to know of the daemon around them."""

    #: Why nothing can be stored at this moment, in one sentence; None when records are taken.
    problem: Callable[[], str | None]
    #: Numbers for people, by name: received, stored, waiting ...
    counters: Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class _Collected:
    """Metrics as they were, in the place of a registry."""

    metrics: Sequence[Metric]

    def collect(self) -> Sequence[Metric]:
        return self.metrics


def status_routes(store: Store, status: Status, registry: CollectorRegistry) -> Sequence[Route[Any, Any]]:
    """Return the routes that tell how the service is."""
    about = _About(store, status, registry)
    tag = "service"
    return [
        Route(
            "GET", "/", "The page for browsers, a sign of life for programs", tag, about.root, response=Alive,
            produces=("text/html",),
        ),
        Route(
            "GET", "/health", "Whether records can be stored", tag, about.health,
            response=Health, also={503: "Nothing can be stored."},
        ),
        Route("GET", "/healthz", "Whether the service runs", tag, about.alive, response=Ready, scope=OPEN),
        Route(
            "GET", "/readyz", "Whether the store answers", tag, about.ready,
            response=Ready, also={503: "The store does not answer."}, scope=OPEN,
        ),
        Route(
            "GET", "/metrics", "Metrics for Prometheus; as JSON for who asks for that", tag, about.metrics,
            produces=("text/plain", "application/openmetrics-text"), response=Running, scope="admin",
        ),
    ]  # fmt: skip


def page_routes(shown: Sequence[Route[Any, Any]]) -> Sequence[Route[Any, Any]]:
    """Return the routes of the OpenAPI document of the `shown` routes, the pages drawn from it, and their assets."""
    text = dumps(document(shown))

    async def openapi(request: web.Request, query: None, body: None) -> web.Response:
        return web.Response(body=text, content_type="application/json")

    def route(path: str, handler: Callable[[web.Request, None, None], Awaitable[web.Response]]) -> Route[Any, Any]:
        return Route("GET", path, "", "", handler, hidden=True)

    pages = [route(path, _asset("docs.html")) for path in ("/docs", "/redoc")]
    files = [route(f"/assets/{file.name}", _asset(file.name)) for file in sorted(ASSETS.iterdir())]
    return [route("/openapi.json", openapi), *pages, *files]


class _About:
    """The handlers."""

    def __init__(self, store: Store, status: Status, registry: CollectorRegistry) -> None:
        self._store = store
        self._status = status
        self._registry = registry
        self._page = _asset("index.html")

    async def root(self, request: web.Request, query: None, body: None) -> web.Response:
        if _wants(request, "application/json", "text/html") == "text/html":
            answer = await self._page(request, query, body)
        else:
            answer = reply({"message": "Log Aggregator is alive!", "timestamp": datetime.now(UTC)})
        answer.headers["Vary"] = "Accept"
        return answer

    async def alive(self, request: web.Request, query: None, body: None) -> web.Response:
        return reply({"status": "ok"})

    async def health(self, request: web.Request, query: None, body: None) -> web.Response:
        reason = self._status.problem()
        return reply(
            {
                "status": "unhealthy" if reason else "healthy",
                "timestamp": datetime.now(UTC),
                "reason": reason,
                "counters": self._status.counters(),
            },
            503 if reason else 200,
        )

    async def ready(self, request: web.Request, query: None, body: None) -> web.Response:
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                await self._store.ping()
        except TimeoutError:
            return _not_ready(f"the store did not answer within {READY_TIMEOUT:g} s")
        except StoreError as error:
            return _not_ready(str(error))
        return reply({"status": "ready"})

    async def metrics(self, request: web.Request, query: None, body: None) -> web.Response:
        kind = _wants(request, "text/plain", "application/openmetrics-text", "application/json")
        if kind == "application/json":
            return reply(self._running(), headers={"Vary": "Accept"})
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        # Collected in one go, so that the books balance; a series for each source takes a while to write.
        collected = _Collected(list(self._registry.collect()))
        text = await asyncio.to_thread(encode, collected)
        return web.Response(body=text, headers={"Content-Type": content_type, "Vary": "Accept"})

    def _running(self) -> dict[str, Any]:
        return {
            "service": "logagg",
            "timestamp": datetime.now(UTC),
            "status": "running",
            "version": version("logagg"),
            "counters": self._status.counters(),
        }


def _not_ready(reason: str) -> web.Response:
    return reply({"status": "not ready", "reason": reason}, 503)


def _wants(request: web.Request, *offers: str) -> str:
    return preferred(",".join(request.headers.getall("Accept", [])), offers)


def _asset(name: str) -> Callable[[web.Request, None, None], Awaitable[web.Response]]:
    """Return a handler that serves this file of the assets, from memory, with an ETag."""
    path = ASSETS / name
    content = path.read_bytes()
    headers = {
        "Cache-Control": "no-cache",  # asked for again each time, and answered with 304
        "Content-Security-Policy": CONTENT_SECURITY,
        "ETag": f'"{hashlib.sha256(content).hexdigest()[:16]}"',
    }

    async def serve(request: web.Request, query: None, body: None) -> web.Response:
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        return web.Response(body=content, headers=headers, content_type=_TYPES[path.suffix], charset="utf-8")

    return serve
